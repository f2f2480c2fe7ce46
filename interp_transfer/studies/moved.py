"""A mapper fitted for one vector, and saved."""

from pathlib import Path

from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.fit import check_kind, fit
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.load import load_model
from interp_transfer.models.sites import check_site
from interp_transfer.prompts.texts import read_texts
from interp_transfer.studies.folders import fresh_folder
from interp_transfer.studies.inputs import check_before_loading
from interp_transfer.vectors.vector import SteeringVector


def fit_for(
    vector: SteeringVector,
    models: tuple[str, str],
    target_site: str,
    texts: str,
    folder: str | Path,
    *,
    kind: str = "affine",
    dtype: str = "auto",
    device: str | None = None,
    progress: bool = True,
) -> Mapper:
    """Fit a mapper from a vector's site to a site of another model, and save it.

    Args:
        vector: the vector that will be moved.
        models: names of the vector's model and of the target.
        target_site: hook point of the target.
        texts: what both models read, see ``prompts.texts.read_texts``.
        folder: folder of the mapper, missing or empty.
        kind: kind of the mapper.
        dtype: dtype of the models.
        device: their device; default: a GPU if there is one.
        progress: show bars for what takes longer than two seconds.

    Raises:
        ValueError: before any long work, for anything unknown.
    """
    check_kind(kind)
    for name, site in zip(models, (vector.site, target_site), strict=True):
        check_before_loading(name, None, site)
    where, read = fresh_folder(folder), read_texts(texts)
    source, target = (load_model(name, dtype=dtype, device=device) for name in models)
    sites = vector.site, check_site(target, target_site)
    pairs = collect(source, target, read, *sites, too_long="drop", progress=progress)
    mapper = fit(pairs, kind, models=(source, target), progress=progress)
    assert where is not None
    mapper.save(where)
    return mapper
