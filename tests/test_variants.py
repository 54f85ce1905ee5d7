import pytest

from mpm import mae, variants


def test_every_named_variant_can_be_built():
    "Names are unique, hold no comma (the command line parts them there), and configs are sound"
    names = [variant.name for variant in variants.VARIANTS]
    assert len(set(names)) == len(names)
    assert not [name for name in names if "," in name or ":" in name]
    for variant in variants.VARIANTS:
        mae.MAEConfig(**({"layers": 2, "window": 15, "units": (0, 1)} | variant.config))


def test_variants_are_chosen_by_name():
    "All by default; those that need several regions only where there are several"
    assert variants.choose([], 2) == variants.VARIANTS
    alone = {variant.name for variant in variants.choose([], 1)}
    assert {variant.name for variant in variants.VARIANTS} - alone == {
        "standardised per region",
        "features aligned",
        "regions balanced",
        "windows of the tested region too",
    }
    assert [v.name for v in variants.choose(["patches masked"], 1)] == ["patches masked"]
    with pytest.raises(ValueError, match="no variant is called 'lines'; there are the cell alone"):
        variants.choose(["lines"], 1)


def test_the_dead_zone_is_that_of_the_widest_window():
    "21 cells among the variants of the demo, whose own are 15; the paper's own are 33"
    assert variants.widest_window("demo") == 21
    assert variants.widest_window("paper") == 33


def test_nothing_is_balanced_within_one_region():
    "Under the region split training windows lie in one; only those of the tested one add another"
    asked = {
        (variant.name, split)
        for variant in variants.VARIANTS
        for split in ("blocks", "region")
        if variants.asked(variant, split)
    }
    assert ("regions balanced", "blocks") in asked
    assert ("regions balanced", "region") not in asked
    assert ("windows of the tested region too", "region") in asked
    assert ("windows of the tested region too", "blocks") not in asked
    assert len(asked) == 2 * len(variants.VARIANTS) - 2
