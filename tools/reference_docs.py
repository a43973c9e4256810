"""Write the reference pages that are made from the code: python tools/reference_docs.py

docs/reference/metrics.md, settings.md and commands.md. A test holds them to what this writes.
"""

from __future__ import annotations

from pathlib import Path

from reference_commands import commands_page
from reference_metrics import metrics_page
from reference_settings import settings_page

FOLDER = Path(__file__).parents[1] / "docs" / "reference"


def pages() -> dict[str, str]:
    """The text of each page, by the name of its file."""
    return {
        "metrics.md": metrics_page(),
        "settings.md": settings_page(),
        "commands.md": commands_page(),
    }


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
