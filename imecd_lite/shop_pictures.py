"""The teaching shop's pictures: every kind of toy is a few shapes, drawn large and made small.

Coordinates run from 0 to 100 in both directions, whatever the size of the picture. The same call gives the same bytes
on every system: integers only, and PNG data that is stored, not compressed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

SIZE = 80  # pixels
DETAIL = 4  # drawn this much larger, then averaged
NUM_COLOURS = 16

OUTLINE = (46, 42, 54)
WHITE = (255, 255, 255)
WOOD, SKIN, METAL, GOLD = (196, 142, 88), (250, 214, 180), (188, 196, 206), (250, 200, 64)
BACKGROUNDS = {
    "space": (206, 206, 240),
    "sea": (198, 230, 242),
    "farm": (248, 236, 190),
    "jungle": (206, 234, 200),
    "royal": (244, 212, 232),
    "racing": (238, 226, 216),
}
COLOURWAYS = (  # main, accent, light; two for each age group, from pastel to strong
    ((247, 168, 184), (150, 206, 236), (255, 244, 214)),
    ((168, 220, 190), (250, 206, 140), (250, 240, 250)),
    ((240, 110, 90), (250, 200, 64), (255, 240, 220)),
    ((94, 170, 226), (245, 130, 66), (238, 246, 255)),
    ((214, 56, 74), (44, 120, 196), (255, 226, 110)),
    ((60, 160, 96), (240, 150, 40), (228, 246, 214)),
    ((72, 80, 160), (228, 72, 112), (216, 220, 244)),
    ((92, 92, 104), (34, 170, 170), (232, 232, 236)),
)


@dataclass
class Pen:
    """Draws shapes with a dark outline; ``shift`` and ``zoom`` (in percent) place the whole figure."""

    draw: ImageDraw.ImageDraw
    main: tuple[int, int, int]
    accent: tuple[int, int, int]
    light: tuple[int, int, int]
    shift: tuple[int, int] = (0, 0)
    zoom: int = 100

    def at(self, points: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Pixel positions of points."""
        side = SIZE * DETAIL
        return [
            tuple(
                (5000 + (value - 50) * self.zoom + 100 * move) * side // 10_000
                for value, move in zip(p, self.shift, strict=True)
            )
            for p in points
        ]

    def width(self, units: int) -> int:
        """Pixels of a line ``units`` tenths of a unit wide."""
        return max(units * SIZE * DETAIL // 1000, 1)

    def oval(self, x0: int, y0: int, x1: int, y1: int, fill=None, outline=OUTLINE) -> None:
        """An ellipse in a box."""
        self.draw.ellipse(self.at([(x0, y0), (x1, y1)]), fill, outline, self.width(20))

    def box(self, x0: int, y0: int, x1: int, y1: int, fill=None, radius: int = 3) -> None:
        """A rectangle with round corners."""
        self.draw.rounded_rectangle(
            self.at([(x0, y0), (x1, y1)]), self.width(10 * radius), fill, OUTLINE, self.width(20)
        )

    def shape(self, points: list[tuple[int, int]], fill=None) -> None:
        """A polygon."""
        corners = self.at(points)
        self.draw.polygon(corners, fill)
        self.draw.line([*corners, corners[0], corners[1]], OUTLINE, self.width(20), joint="curve")

    def line(self, points: list[tuple[int, int]], fill=OUTLINE, units: int = 20) -> None:
        """An open line."""
        self.draw.line(self.at(points), fill, self.width(units), joint="curve")

    def arc(self, x0: int, y0: int, x1: int, y1: int, start: int, end: int, units: int = 20, fill=OUTLINE) -> None:
        """Part of an ellipse, in degrees clockwise from three o'clock."""
        self.draw.arc(self.at([(x0, y0), (x1, y1)]), start, end, fill, self.width(units))

    def dot(self, x: int, y: int, fill=OUTLINE, radius: int = 2) -> None:
        """A small disc without outline."""
        self.draw.ellipse(self.at([(x - radius, y - radius), (x + radius, y + radius)]), fill)

    def face(self, x: int, y: int, gap: int = 7) -> None:
        """Two eyes and a smile around a point."""
        self.dot(x - gap, y)
        self.dot(x + gap, y)
        self.arc(x - 5, y + 1, x + 5, y + 9, 20, 160)


def draw_blocks(p: Pen) -> None:
    for x, y, colour in ((12, 56, p.main), (50, 56, p.accent), (31, 20, GOLD)):
        p.box(x, y, x + 36, y + 34, colour)
        for stud in (x + 5, x + 21):
            p.box(stud, y - 7, stud + 10, y + 1, colour, 1)


def draw_castle(p: Pen) -> None:
    p.box(22, 46, 78, 88, p.light, 1)
    for x in (12, 68):
        p.box(x, 34, x + 20, 88, p.main, 1)
        p.shape([(x - 3, 34), (x + 10, 12), (x + 23, 34)], p.accent)
        p.box(x + 7, 44, x + 13, 56, OUTLINE, 2)
    for x in (33, 45, 57):
        p.box(x, 40, x + 8, 48, p.light, 0)
    p.box(40, 64, 60, 88, WOOD, 8)
    p.line([(50, 40), (50, 16)])
    p.shape([(50, 16), (64, 21), (50, 27)], p.accent)


def draw_robot(p: Pen) -> None:
    p.line([(50, 20), (50, 8)])
    p.oval(45, 3, 55, 13, p.accent)
    p.box(28, 18, 72, 46, p.main, 6)
    for x in (36, 54):
        p.oval(x, 25, x + 11, 36, WHITE)
        p.dot(x + 6, 31)
    p.line([(40, 41), (60, 41)])
    p.box(24, 50, 76, 82, p.light, 4)
    p.box(34, 57, 54, 70, p.accent, 2)
    p.dot(64, 60, p.main, 4)
    p.dot(64, 71, GOLD, 4)
    for x in (10, 78):
        p.box(x, 52, x + 12, 76, METAL, 5)
    for x in (31, 55):
        p.box(x, 82, x + 14, 94, METAL, 2)


def draw_car(p: Pen) -> None:
    p.shape([(24, 48), (36, 26), (66, 26), (80, 48)], p.light)
    p.line([(51, 27), (51, 48)])
    p.box(6, 46, 94, 72, p.main, 8)
    p.box(6, 57, 94, 62, p.accent, 0)
    p.oval(86, 50, 94, 58, GOLD)
    for x in (16, 60):
        p.oval(x, 60, x + 24, 84, OUTLINE)
        p.oval(x + 7, 67, x + 17, 77, METAL)


def draw_train(p: Pen) -> None:
    p.box(12, 20, 46, 70, p.accent, 2)
    p.box(19, 29, 39, 46, p.light, 2)
    p.box(8, 14, 50, 22, p.main, 3)
    p.box(44, 42, 90, 70, p.main, 6)
    p.shape([(66, 42), (62, 20), (82, 20), (78, 42)], OUTLINE)
    p.oval(84, 50, 94, 60, GOLD)
    p.shape([(88, 70), (98, 84), (82, 84)], METAL)
    for x, size in ((14, 24), (42, 18), (64, 18)):
        p.oval(x, 86 - size, x + size, 86, GOLD)
        p.dot(x + size // 2, 86 - size // 2, OUTLINE, 3)


def draw_airplane(p: Pen) -> None:
    p.shape([(46, 50), (30, 12), (44, 12), (68, 48)], p.accent)
    p.shape([(12, 46), (6, 22), (18, 22), (30, 44)], p.accent)
    p.oval(8, 36, 94, 64, p.main)
    p.shape([(44, 56), (26, 88), (42, 88), (66, 58)], p.accent)
    for x in (36, 48, 60):
        p.oval(x, 43, x + 8, 51, p.light)
    p.shape([(74, 41), (86, 43), (91, 48), (74, 50)], p.light)


def draw_ball(p: Pen) -> None:
    p.oval(12, 12, 88, 88, p.main)
    p.draw.pieslice(p.at([(13, 13), (87, 87)]), 200, 260, p.light)
    p.draw.pieslice(p.at([(13, 13), (87, 87)]), 320, 20, p.accent)
    p.draw.pieslice(p.at([(13, 13), (87, 87)]), 80, 140, GOLD)
    p.oval(12, 12, 88, 88)
    p.oval(42, 42, 58, 58, WHITE)


def draw_kite(p: Pen) -> None:
    p.shape([(56, 6), (86, 34), (52, 68), (26, 34)], p.main)
    p.shape([(56, 6), (86, 34), (54, 36)], p.accent)
    p.shape([(52, 68), (26, 34), (54, 36)], p.light)
    p.arc(22, 66, 52, 84, 270, 90)
    p.arc(18, 84, 52, 102, 180, 270)
    for x, y in ((46, 72), (36, 86)):
        p.shape([(x, y), (x - 9, y - 5), (x - 9, y + 5)], p.accent)
        p.shape([(x, y), (x + 9, y - 5), (x + 9, y + 5)], p.accent)


def draw_scooter(p: Pen) -> None:
    p.line([(66, 18), (80, 78)], OUTLINE, 70)
    p.line([(66, 18), (80, 78)], p.main, 35)
    p.line([(52, 20), (78, 14)], OUTLINE, 60)
    p.dot(52, 20, p.accent, 5)
    p.dot(78, 14, p.accent, 5)
    p.box(18, 66, 80, 76, p.accent, 4)
    for x in (8, 70):
        p.oval(x, 68, x + 24, 92, OUTLINE)
        p.oval(x + 7, 75, x + 17, 85, p.light)


def draw_bear(p: Pen) -> None:
    fur, belly = WOOD, (232, 198, 156)
    for x in (20, 58):
        p.oval(x, 4, x + 22, 26, fur)
        p.oval(x + 6, 10, x + 16, 20, belly)
    for x, y in ((8, 54), (72, 54)):
        p.oval(x, y, x + 20, y + 24, fur)
    for x in (20, 56):
        p.oval(x, 74, x + 24, 96, fur)
    p.oval(22, 46, 78, 92, fur)
    p.oval(34, 58, 66, 86, belly)
    p.oval(22, 10, 78, 56, fur)
    p.oval(38, 30, 62, 52, belly)
    p.dot(38, 28, radius=3)
    p.dot(62, 28, radius=3)
    p.oval(45, 33, 55, 40, OUTLINE)
    p.arc(43, 36, 57, 48, 30, 150)
    p.shape([(50, 58), (34, 51), (34, 65)], p.main)
    p.shape([(50, 58), (66, 51), (66, 65)], p.main)


def draw_bunny(p: Pen) -> None:
    for x in (32, 54):
        p.oval(x, 0, x + 14, 46, WHITE)
        p.oval(x + 4, 8, x + 10, 40, p.main)
    p.oval(70, 70, 88, 88, WHITE)
    p.oval(24, 54, 76, 96, WHITE)
    p.oval(36, 66, 64, 94, p.light)
    p.oval(26, 28, 74, 66, WHITE)
    p.dot(40, 44, radius=3)
    p.dot(60, 44, radius=3)
    p.oval(46, 48, 54, 54, p.main)
    p.line([(50, 54), (50, 58)])
    p.arc(42, 52, 50, 61, 20, 160)
    p.arc(50, 52, 58, 61, 20, 160)
    p.shape([(36, 66), (50, 72), (64, 66), (64, 76), (50, 72), (36, 76)], p.accent)


def draw_dinosaur(p: Pen) -> None:
    for x, y in ((30, 34), (20, 48), (40, 26)):
        p.shape([(x, y + 12), (x + 4, y - 4), (x + 14, y + 8)], p.accent)
    p.shape([(2, 80), (22, 52), (44, 40), (70, 50), (72, 74), (62, 80), (30, 80), (14, 82)], p.main)
    for x in (30, 54):
        p.box(x, 72, x + 13, 94, p.main, 4)
    p.shape([(48, 56), (56, 22), (74, 22), (70, 58)], p.main)
    p.box(52, 8, 94, 36, p.main, 9)
    p.dot(70, 18, WHITE, 5)
    p.dot(71, 18, radius=2)
    p.line([(74, 29), (92, 29)])
    p.dot(88, 16, radius=1)
    p.oval(40, 54, 62, 74, p.light)


def draw_doll(p: Pen) -> None:
    p.oval(26, 2, 74, 52, WOOD)
    for x in (18, 68):
        p.oval(x, 30, x + 14, 56, WOOD)
    p.shape([(50, 46), (78, 84), (22, 84)], p.main)
    p.line([(28, 77), (72, 77)], p.accent, 40)
    for x in (38, 54):
        p.box(x, 84, x + 8, 96, SKIN, 2)
    p.line([(40, 58), (20, 68)], OUTLINE, 70)
    p.line([(60, 58), (80, 68)], OUTLINE, 70)
    p.line([(40, 58), (20, 68)], SKIN, 35)
    p.line([(60, 58), (80, 68)], SKIN, 35)
    p.oval(31, 12, 69, 50, SKIN)
    p.draw.pieslice(p.at([(31, 9), (69, 44)]), 180, 360, WOOD, OUTLINE, p.width(20))
    p.face(50, 33)
    p.dot(39, 40, (244, 160, 150), 3)
    p.dot(61, 40, (244, 160, 150), 3)
    p.shape([(50, 10), (38, 4), (38, 16)], p.accent)
    p.shape([(50, 10), (62, 4), (62, 16)], p.accent)


def draw_dollhouse(p: Pen) -> None:
    p.box(66, 8, 76, 34, WOOD, 0)
    p.box(16, 40, 84, 92, p.light, 1)
    p.shape([(6, 42), (50, 6), (94, 42)], p.main)
    p.oval(43, 20, 57, 34, WHITE)
    for x in (24, 62):
        p.box(x, 50, x + 14, 64, p.accent, 1)
        p.line([(x + 7, 50), (x + 7, 64)])
    p.box(41, 62, 59, 92, WOOD, 3)
    p.dot(55, 78, GOLD, 2)


def draw_teapot(p: Pen) -> None:
    p.arc(66, 40, 96, 74, 250, 110, 60)
    p.shape([(26, 62), (4, 40), (12, 34), (36, 50)], p.main)
    p.oval(20, 34, 78, 84, p.main)
    p.oval(32, 30, 66, 44, p.light)
    p.oval(44, 20, 54, 31, p.accent)
    for x in (36, 50, 64):
        p.dot(x, 62, p.light, 5)
    p.box(30, 80, 68, 87, p.accent, 3)


def draw_drum(p: Pen) -> None:
    p.draw.rectangle(p.at([(18, 40), (82, 78)]), p.main)
    p.oval(18, 64, 82, 92, p.main)
    p.draw.rectangle(p.at([(19, 44), (81, 77)]), p.main)
    p.line([(19, 40), (19, 78)])
    p.line([(81, 40), (81, 78)])
    p.line([(20, 50), (35, 84), (50, 56), (65, 84), (80, 50)], p.light, 25)
    p.oval(18, 26, 82, 54, p.light)
    for x, tip in ((20, 46), (80, 56)):
        p.line([(x, 6), (tip, 36)], OUTLINE, 50)
        p.line([(x, 6), (tip, 36)], WOOD, 25)
        p.oval(tip - 4, 33, tip + 4, 41, p.accent)


def draw_guitar(p: Pen) -> None:
    p.line([(42, 60), (78, 16)], OUTLINE, 110)
    p.line([(42, 60), (78, 16)], WOOD, 70)
    p.shape([(72, 14), (82, 4), (92, 12), (82, 24)], p.accent)
    p.oval(34, 36, 68, 70, p.main)
    p.oval(8, 46, 56, 94, p.main)
    p.draw.ellipse(p.at([(36, 44), (58, 64)]), p.main)
    p.oval(32, 52, 50, 70, OUTLINE)
    p.line([(28, 76), (82, 14)], p.light, 15)
    p.line([(24, 72), (36, 84)], OUTLINE, 40)


def draw_xylophone(p: Pen) -> None:
    p.shape([(4, 40), (96, 54), (96, 62), (4, 76)], WOOD)
    bars = ((8, 26, 90, p.main), (24, 30, 86, GOLD), (40, 34, 82, p.accent), (56, 38, 78, p.main), (72, 42, 74, GOLD))
    for x, top, bottom, colour in bars:
        p.box(x, top, x + 13, bottom, colour, 3)
        p.dot(x + 6, top + 6, WHITE)
        p.dot(x + 6, bottom - 6, WHITE)
    p.line([(96, 6), (60, 24)], OUTLINE, 40)
    p.oval(52, 20, 64, 32, p.light)


def draw_jigsaw(p: Pen) -> None:
    for x, y, colour in ((10, 10, p.main), (50, 10, p.accent), (10, 50, GOLD), (50, 50, p.light)):
        p.box(x, y, x + 40, y + 40, colour, 1)
    for x, y, colour in ((44, 24, p.main), (24, 44, p.main), (64, 44, p.accent), (44, 64, GOLD)):
        p.oval(x, y, x + 13, y + 13, colour)
    for x, y, colour in ((36, 20, p.main), (20, 36, p.main), (60, 36, p.accent), (36, 60, GOLD)):
        p.draw.rectangle(p.at([(x + 1, y + 3), (x + 13, y + 13)]), colour)


def draw_dice(p: Pen) -> None:
    p.box(8, 34, 56, 82, p.main, 8)
    for x, y in ((20, 46), (44, 46), (32, 58), (20, 70), (44, 70)):
        p.dot(x, y, WHITE, 5)
    p.shape([(56, 22), (80, 10), (96, 34), (72, 48)], p.accent)
    for x, y in ((68, 25), (76, 29), (84, 33)):
        p.dot(x, y, WHITE, 3)
    p.oval(66, 56, 84, 72, p.light)
    p.shape([(75, 66), (88, 92), (62, 92)], p.light)


def draw_cards(p: Pen) -> None:
    p.shape([(12, 26), (44, 14), (62, 68), (30, 80)], p.accent)
    p.shape([(34, 14), (70, 14), (70, 70), (34, 70)], p.light)
    p.shape([(54, 16), (88, 28), (70, 84), (36, 72)], WHITE)
    p.shape([(62, 68), (48, 48), (54, 40), (62, 46), (72, 42), (76, 52)], p.main)
    p.dot(60, 27, p.main, 3)


def draw_rocket(p: Pen) -> None:
    p.shape([(36, 78), (50, 100), (64, 78)], GOLD)
    p.shape([(30, 52), (12, 82), (34, 76)], p.accent)
    p.shape([(70, 52), (88, 82), (66, 76)], p.accent)
    p.shape([(50, 2), (66, 22), (72, 50), (66, 78), (34, 78), (28, 50), (34, 22)], p.light)
    p.shape([(50, 2), (66, 22), (34, 22)], p.main)
    p.oval(38, 34, 62, 58, METAL)
    p.oval(43, 39, 57, 53, (150, 206, 236))


def draw_microscope(p: Pen) -> None:
    p.box(16, 84, 84, 94, p.main, 4)
    p.arc(20, 24, 82, 90, 290, 80, 90)
    p.box(24, 68, 66, 75, p.accent, 1)
    p.shape([(28, 16), (46, 8), (62, 48), (44, 56)], p.light)
    p.shape([(24, 10), (44, 2), (48, 12), (28, 20)], p.main)
    p.shape([(46, 55), (60, 49), (63, 60), (52, 64)], METAL)
    p.oval(66, 50, 82, 66, p.accent)


def draw_paint(p: Pen) -> None:
    p.oval(6, 22, 86, 90, WOOD)
    p.oval(52, 64, 70, 80, BACKGROUNDS["farm"])
    for x, y, colour in ((18, 50, p.main), (30, 32, GOLD), (52, 30, p.accent), (30, 68, (60, 160, 96))):
        p.oval(x, y, x + 15, y + 14, colour)
    p.line([(94, 6), (62, 52)], OUTLINE, 70)
    p.line([(94, 6), (66, 46)], p.light, 35)
    p.shape([(66, 40), (72, 46), (56, 60)], p.main)


DRAWINGS: dict[str, Callable[[Pen], None]] = {
    name.removeprefix("draw_"): function for name, function in globals().items() if name.startswith("draw_")
}


def emblem(pen: Pen, theme: str) -> None:
    """The theme's small sign, in the lower right corner: star, fish, flower, leaf, crown or flash."""
    pen.oval(76, 76, 99, 99, WHITE)
    if theme == "space":
        points = [(88, 79), (90, 85), (96, 85), (91, 89), (93, 95), (88, 91), (83, 95), (85, 89), (80, 85), (86, 85)]
        pen.draw.polygon(pen.at(points), (72, 80, 160))
    elif theme == "sea":
        pen.draw.ellipse(pen.at([(80, 83), (92, 93)]), (30, 130, 190))
        pen.draw.polygon(pen.at([(90, 88), (97, 82), (97, 94)]), (30, 130, 190))
    elif theme == "farm":
        for x, y in ((87, 82), (82, 86), (92, 86), (84, 92), (90, 92)):
            pen.dot(x, y, (226, 120, 40), 3)
        pen.dot(87, 88, (120, 70, 30), 3)
    elif theme == "jungle":
        pen.draw.chord(pen.at([(78, 80), (98, 100)]), 180, 300, (40, 140, 70))
        pen.draw.chord(pen.at([(76, 76), (96, 96)]), 0, 120, (40, 140, 70))
    elif theme == "royal":
        pen.draw.polygon(pen.at([(80, 82), (84, 87), (88, 80), (92, 87), (96, 82), (94, 94), (82, 94)]), (190, 60, 140))
    else:
        pen.draw.polygon(pen.at([(89, 78), (81, 89), (87, 89), (84, 97), (94, 85), (88, 85)]), (214, 56, 74))


def draw_item(kind: str, theme: str, colourway: int, shift: tuple[int, int], zoom: int, mirrored: bool) -> Image.Image:
    """The picture of an item: RGB, ``SIZE`` pixels square."""
    side = SIZE * DETAIL
    image = Image.new("RGB", (side, side), BACKGROUNDS[theme])
    draw = ImageDraw.Draw(image)
    main, accent, light = COLOURWAYS[colourway]
    DRAWINGS[kind](Pen(draw, main, accent, light, shift, zoom))
    if mirrored:
        image = ImageOps.mirror(image)
    emblem(Pen(ImageDraw.Draw(image), main, accent, light), theme)
    return image.reduce(DETAIL)


def png_bytes(image: Image.Image) -> bytes:
    """A PNG of at most 16 colours whose bytes depend on nothing but the picture: the data is stored uncompressed."""
    indexed = image.quantize(NUM_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    width, height = indexed.size
    palette = bytes(indexed.getpalette()).ljust(3 * NUM_COLOURS, b"\0")[: 3 * NUM_COLOURS]
    pixels = indexed.tobytes()
    packed = bytes(high << 4 | low for high, low in zip(pixels[::2], pixels[1::2], strict=True))  # four bits a pixel
    rows = b"".join(b"\0" + packed[row * width // 2 : (row + 1) * width // 2] for row in range(height))
    stored = b"\x78\x01\x01" + struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF) + rows  # one stored deflate block
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0)),
        (b"PLTE", palette),
        (b"IDAT", stored + struct.pack(">I", zlib.adler32(rows))),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def contact_sheet(pictures: list[tuple[Path | Image.Image, str]], columns: int = 8) -> Image.Image:
    """Pictures in a grid with a line of text below each."""
    cell, gap, text = SIZE, 28, 18
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (cell + gap) + gap, rows * (cell + text + gap) + gap), WHITE)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for number, (picture, caption) in enumerate(pictures):
        x, y = gap + number % columns * (cell + gap), gap + number // columns * (cell + text + gap)
        image = picture if isinstance(picture, Image.Image) else Image.open(picture)
        sheet.paste(image.convert("RGB"), (x, y))
        draw.text((x + cell // 2, y + cell + 3), caption, OUTLINE, font, anchor="ma")
    return sheet
