"""``python -m zoobook``: the command ``zoobook``, where its folder is not on the path."""

from zoobook.cli import app

if __name__ == "__main__":
    app(prog_name="zoobook")
