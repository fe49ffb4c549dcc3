"""Write data/SHA256SUMS anew, after a change of the bundled data; `make hashes`."""

from imecd_lite.doctor import SUMS_FILE, hash_bundled_data

SUMS_FILE.write_text("".join(f"{digest}  {name}\n" for name, digest in hash_bundled_data().items()), encoding="utf-8")
print(f"Wrote {SUMS_FILE.name}.")
