"""Write the files of the bundled models that repeat their cards again: `python -m scripts.describe_models`."""

from pdeinfer.export.model_readme import write_descriptions
from pdeinfer.package import zoo
from pdeinfer.package.writing import write_card


def main() -> None:
    """Write the descriptions of every bundled model, and its card with their checksums."""
    for name in zoo.names():
        package = zoo.load(name)
        package.verify_checksums()
        write_descriptions(package.card, package.path)
        write_card(package.path, package.card)
        print(f"{name}: written")


if __name__ == "__main__":
    main()
