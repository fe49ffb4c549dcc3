"""What a widget's page says, for the tests that move it."""


def alts(part) -> list[str]:
    """The texts of the pictures in ``part``, in order."""
    return part.locator("img").evaluate_all("images => images.map(image => image.alt)")


def row(explorer, description: str):
    """The slider of ``explorer`` that is labelled ``description``."""
    return explorer.locator(".widget-slider", has=explorer.page.get_by_text(description, exact=True))
