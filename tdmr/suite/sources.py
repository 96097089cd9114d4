"""Where the public benchmarks come from, and what must be in them.

Sizes serve messages and progress alone. A checksum is never ours: `checked_by` says who publishes
it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tdmr.errors import OptionsError, near_matches

OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"


@dataclass(frozen=True)
class Archive:
    """One file to download: its address, its size in bytes, its MD5 and who publishes that."""

    url: str
    bytes: int
    md5: str
    checked_by: str = "torchvision"

    @property
    def name(self) -> str:
        """The file's own name, under which it is kept."""
        return self.url.rpartition("/")[2]

    @property
    def is_tar(self) -> bool:
        """Whether it has to be unpacked; anything else is used as it is."""
        return self.name.endswith((".tar.gz", ".tgz"))


@dataclass(frozen=True)
class Source:
    """A public dataset: its files, its terms, and the numbers of classes and images per split."""

    name: str
    title: str
    homepage: str
    terms: str
    archives: tuple[Archive, ...]
    classes: int
    train: int
    test: int
    val: int = 0

    @property
    def bytes(self) -> int:
        """Size of the download."""
        return sum(archive.bytes for archive in self.archives)


CIFAR_100 = Source(
    name="cifar-100",
    title="CIFAR-100 (Krizhevsky 2009), binary version, 100 fine classes",
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    terms="No licence is stated; its page asks that the technical report be cited.",
    archives=(
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            168_513_733,
            "03b5dce01913d631647c71ecec9e9cb8",
            "the dataset's page",
        ),
    ),
    classes=100,
    train=50_000,
    test=10_000,
)
FLOWERS_102 = Source(
    name="flowers-102",
    title="Oxford 102 Flowers (Nilsback and Zisserman 2008)",
    homepage=f"{OXFORD}/flowers/102/",
    terms="No licence is stated; the photographs are the property of their owners.",
    archives=(
        Archive(
            f"{OXFORD}/flowers/102/102flowers.tgz", 344_862_509, "52808999861908f626f3c1f4e79d11fa"
        ),
        Archive(f"{OXFORD}/flowers/102/imagelabels.mat", 502, "e0620be6f572b9609742df49c70aed4d"),
        Archive(f"{OXFORD}/flowers/102/setid.mat", 14_989, "a5357ecc9cb78c4bef273ce3793fc85c"),
    ),
    classes=102,
    train=1_020,
    val=1_020,
    test=6_149,
)
PETS = Source(
    name="pets",
    title="Oxford-IIIT Pets (Parkhi et al. 2012), 37 breeds",
    homepage=f"{OXFORD}/pets/",
    terms="CC BY-SA 4.0; the photographs remain the property of their owners.",
    archives=(
        Archive(
            f"{OXFORD}/pets/data/images.tar.gz", 791_918_971, "5c4f3ee8e5d25df40f4fd59a7f44e54c"
        ),
        Archive(
            f"{OXFORD}/pets/data/annotations.tar.gz", 19_173_078, "95a8c909bbe2e81eed6a22bccdf3f68f"
        ),
    ),
    classes=37,
    train=3_680,
    test=3_669,
)
CUB_200 = Source(
    name="cub-200",
    title="CUB-200-2011, Caltech-UCSD Birds (Wah et al. 2011)",
    homepage="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    terms="Non-commercial research and teaching only; the photographs belong to their owners.",
    archives=(
        Archive(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            1_150_585_339,
            "97eceeb196236b17998738112f37df78",
            "CaltechDATA",
        ),
    ),
    classes=200,
    train=5_994,
    test=5_794,
)
FOOD_101 = Source(
    name="food-101",
    title="Food-101 (Bossard, Guillaumin and Van Gool 2014)",
    homepage="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    terms="Scientific fair use; anything beyond needs the consent of the photographs' owners.",
    archives=(
        Archive(
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            4_996_278_331,
            "85eeb15f3717b99a5da872d97d918f87",
        ),
    ),
    classes=101,
    train=75_750,
    test=25_250,
)

SOURCES: dict[str, Source] = {
    source.name: source for source in (CIFAR_100, FLOWERS_102, PETS, CUB_200, FOOD_101)
}


def require(name: str) -> Source:
    """The source called `name`. Raises OptionsError, with the nearest known names, for others."""
    if name not in SOURCES:
        raise OptionsError(
            f"{name!r} is no dataset of this suite: {', '.join(SOURCES)}.",
            suggestion=near_matches(name, SOURCES),
        )
    return SOURCES[name]
