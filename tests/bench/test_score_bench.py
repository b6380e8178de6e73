"""The scorer's speed."""

from kvtune.bench.score import bench_score, made_up_captions


def test_captions_differ_and_come_from_the_seed():
    captions = made_up_captions(300, words=90, seed=1)
    assert len(set(captions)) == 300
    assert captions == made_up_captions(300, words=90, seed=1)
    assert captions != made_up_captions(300, words=90, seed=2)
    assert all(90 <= len(caption.split()) <= 140 for caption in captions)


def test_speed():
    # 40,000 captions a second of a core were measured; far less means that something became slow.
    result = max((bench_score(4000, seed=seed) for seed in range(3)), key=lambda result: result.captions_per_second)
    assert result.captions == 4000
    assert result.words > 90
    assert result.captions_per_second > 10_000
    assert result.captions_per_second == result.captions / result.cpu_seconds
