"""Every family under every method: the engine writes what generate() writes, or the method is refused, and why."""

import pytest
from checkpoints import SAVERS
from family_runs import pictures
from newer_checkpoints import NEWER

from kvtune.captioning.model_check import check_model, prove
from kvtune.methods import get_method, method_names
from kvtune.models import load_model

WITHOUT_PLACES = {"instructblip", "minigpt4", "idefics3", "paligemma", "mistral3", "glm4v"}
"""Q-Formers, whose tokens have none, and families that nobody named."""
WITHOUT_PLACES |= {"internvl"}  # in generate(), whose inputs do not say how tiles lie; the engine asks the picture

OF_EACH_MODEL = [
    get_method("ad_hh")(heads=[[0, 1], [1, 2], [2, 0]], threshold=0.2),
    get_method("var")(tau=1.5, rho=0.9, p=0.3, sink_dims="auto"),
]
"""Methods that name parts of one model, which are not those of a small one."""


@pytest.mark.parametrize("name", [pytest.param("demo", marks=pytest.mark.slow), *SAVERS, *NEWER])
def test_every_method_writes_what_generate_writes_or_is_refused(name, loaded, newer, record_property):
    if name == "demo":
        vlm = load_model("demo", device="cpu", dtype="float64")
    else:
        vlm = loaded(name) if name in SAVERS else newer(name)
    checked = check_model(vlm, pictures()[:1], max_new_tokens=8)
    proofs, refused = checked.proofs, dict(checked.refused)
    others = [method for method in OF_EACH_MODEL if method.name in refused and name != "paligemma"]
    if others:
        proofs = proofs + prove(vlm, pictures()[:1], others, max_new_tokens=8)
        refused = {method: why for method, why in refused.items() if method not in {other.name for other in others}}
    record_property("refused", refused)

    assert checked.proven is True, checked.verdict
    assert all(proof.first_difference is None for proof in proofs)
    assert {proof.method for proof in proofs} == {None, *method_names()} - refused.keys()
    expected = {"dscr"} if name in WITHOUT_PLACES else set()
    if name in ("gemma3", "glm4v"):  # whose rotary positions are not of one kind, or are interleaved
        expected |= {"clvs"}
    if name == "paligemma":  # whose prompt sees itself both ways
        expected = {method for method in method_names() if get_method(method).acts_from != "generated"}
    assert refused.keys() == expected
    assert all("\n" not in why for why in refused.values())
