"""Sparse autoencoders of one model's site, through sae-lens: load them, keep them, and read what they hold.

sae-lens trains them (`features.train`) and knows their architectures; what is done to a model with them goes through our own
interventions (`features.use`), because sae-lens' hooks on a bridge can do nothing without telling.

Every SAE is brought into one form: an activation is read off for each feature, `decoder` holds what one unit of it adds to the
activation, and rows far longer than those it was trained on (`longest`) are left alone.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.features.dictionary_learning import is_dictionary, read_dictionary
from interp_transfer.io import (
    check_digest,
    file_hash,
    named_errors,
    parse_json,
    typed,
    with_digest,
    write_json,
    write_tensors,
)
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import check_site
from interp_transfer.names import first_line
from interp_transfer.plugins import known_models
from interp_transfer.vectors.vector import Reference, SteeringVector, check_same

FORMAT = "interp_transfer.sae/1"
OF_CHANGES = (DeprecationWarning, FutureWarning, ImportWarning, PendingDeprecationWarning)
"""Warnings of future changes; others are about the SAE that is loaded."""
PROCESSING = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases", "refactor_factored_attn_matrices")
"""What transformer-lens may do to weights, which changes activations."""
FILE = "interp_transfer.json"
"""Beside what sae-lens writes: the model, the site, what is known of the SAE."""

Edit = Callable[[Float[Tensor, "n feature"]], Float[Tensor, "n feature"]]


@dataclass(frozen=True, repr=False, eq=False)
class Sae:
    """A sparse autoencoder of one model's activations at one site.

    Attributes:
        module: as sae-lens has it, an ``nn.Module``; not changed by anything here.
        site: hook-point name.
        model: the model whose activations it reads.
        longest: rows longer than this, such as massive activations at a first token, are not read and not changed.
        details: how it was trained, what was measured.
    """

    module: Any
    site: str
    model: ModelIdentity
    longest: float = math.inf
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def d_model(self) -> int:
        """Width of the activations."""
        return int(self.module.cfg.d_in)

    @property
    def n_features(self) -> int:
        """How many features it has."""
        return int(self.module.cfg.d_sae)

    @property
    def architecture(self) -> str:
        """As sae-lens calls it: topk, jumprelu, standard, ..."""
        return str(self.module.cfg.architecture())

    @property
    def decoder(self) -> Float[Tensor, "feature d_model"]:
        """What one unit of each feature's activation adds to the activation (where the SAE normalises nothing at run time)."""
        rows = self.module.W_dec.detach()
        rescales = getattr(self.module.cfg, "rescale_acts_by_decoder_norm", False)
        return rows / rows.norm(dim=1, keepdim=True) if rescales else rows

    @property
    def encoder(self) -> Float[Tensor, "feature d_model"]:
        """What each feature reads: its activation before the non-linearity, per unit of the activation."""
        return self.module.W_enc.detach().T

    @torch.no_grad()
    def encode(self, rows: Float[Tensor, "n d_model"]) -> Float[Tensor, "n feature"]:
        """The activation of each feature; 0 for rows that are too long to be read.

        Raises:
            ValueError: for rows of another width.
        """
        self._check_width(rows)
        features = self.module.encode(rows.to(self._device))
        return torch.where(self._readable(rows)[:, None].to(features.device), features, 0.0).to(rows.device)

    @torch.no_grad()
    def reconstruct(
        self, rows: Float[Tensor, "n d_model"], edit: Edit | None = None, *, keep_error: bool = False
    ) -> Float[Tensor, "n d_model"]:
        """Rows as the SAE gives them back, their features changed on the way.

        Args:
            rows: activations.
            edit: of the features' activations; none leaves them as they are.
            keep_error: add what the SAE does not reconstruct, so that nothing changes but what ``edit`` does; without it, rows
                are replaced by their reconstruction (as in the paper).

        Raises:
            ValueError: for rows of another width.
        """
        self._check_width(rows)
        own = rows.to(self._device)
        out = self._decoded(own, edit)
        if keep_error:
            out = own + out - self._decoded(own, None) if edit is not None else own
        return torch.where(self._readable(rows)[:, None], out.to(rows.device, rows.dtype), rows)

    def feature(
        self, index: int, reference: Float[Tensor, "n d_model"] | None = None, size: float | int = 1.0
    ) -> SteeringVector:
        """A feature's decoder row as a steering vector.

        It is a bare direction: ``transfer`` moves it by mode "delta" or "jacobian", at the reference activations.

        Args:
            index: of the feature.
            reference: activations at which it is looked at, such as those that it is to be added to.
            size: of the feature's activation that strength 1.0 stands for, such as its mean where it fires.

        Raises:
            ValueError: for an index out of range, or a row of zeros.
        """
        self.check_index(index)
        direction = self.decoder[index].cpu().float() * size
        if not direction.norm() > 0:
            raise ValueError(f"feature {index} adds nothing (its decoder row times {size} is zero): choose another")
        evidence = () if reference is None else Reference(reference)
        return SteeringVector(direction, self.site, self.model, evidence, f"SAE feature {index}")

    def check_index(self, index: int) -> int:
        """Return ``index`` if there is such a feature.

        Raises:
            ValueError: naming the range.
        """
        if not 0 <= index < self.n_features:
            raise ValueError(f"feature {index} of {self.n_features}: choose from 0 to {self.n_features - 1}")
        return index

    def check_model(self, model: HookedModel) -> None:
        """Refuse a model that this is not an SAE of.

        Raises:
            ValueError: naming both models, or the widths.
        """
        check_same(self.model, identity(model), "this SAE and the model are")
        width = capture(model, [""], self.site, ids=[[0]], progress=False)[self.site].shape[1]
        if width != self.d_model:
            raise ValueError(f"this SAE reads {self.d_model} dimensions, {self.site!r} of {identity(model)} has {width}")

    def for_model(self, model: HookedModel) -> "Sae":
        """The same SAE, bound to another model on purpose (a fine-tune of the one that it was trained on, say).

        Raises:
            ValueError: where the model lacks the site or is of another width.
        """
        check_site(model, self.site)
        bound = replace(self, model=identity(model))
        bound.check_model(model)
        return bound

    def save(self, folder: str | Path) -> Path:
        """Write sae-lens' files and ``interp_transfer.json`` into a folder, made if it is missing.

        The JSON comes last, so a folder that has it is whole.
        """
        from sae_lens.constants import SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME

        where = Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        (where / FILE).unlink(missing_ok=True)
        state = self.module.state_dict()
        self.module.process_state_dict_for_saving(state)
        files = [where / SAE_WEIGHTS_FILENAME, where / SAE_CFG_FILENAME]
        write_tensors(files[0], state)
        write_json(files[1], self.module.cfg.to_dict())
        plain = {
            "format": FORMAT,
            "site": self.site,
            "model": asdict(self.model),
            "longest": None if math.isinf(self.longest) else self.longest,
            "details": self.details,
            "files": {path.name: file_hash(path) for path in files},
        }
        write_json(where / FILE, with_digest(plain))
        return where

    def __repr__(self) -> str:
        known = self.details.get("measured", {})
        told = "".join(f", {name} {known[name]:.3g}" for name in ("explained_variance", "l0") if name in known)
        size = f"{self.n_features} features of {self.d_model}"
        return f"Sae({self.architecture}, {size} at {self.site} of {self.model.name}{told})"

    @property
    def _device(self) -> torch.device:
        return self.module.W_dec.device

    def _readable(self, rows: Tensor) -> Tensor:
        return rows.float().norm(dim=1) <= self.longest

    def _decoded(self, rows: Tensor, edit: Edit | None) -> Tensor:
        # One decode for each encode: sae-lens keeps what it normalised by from the one to the other.
        features = self.module.encode(rows)
        return self.module.decode(features if edit is None else edit(features))

    def _check_width(self, rows: Tensor) -> None:
        if rows.ndim != 2 or rows.shape[1] != self.d_model:
            raise ValueError(f"rows of shape {tuple(rows.shape)}: this SAE takes (row, {self.d_model})")


def load_sae(
    what: str | Path | Any,
    *,
    sae_id: str | None = None,
    model: HookedModel | None = None,
    site: str | None = None,
    device: str = "cpu",
) -> Sae:
    """An SAE that ships with a known model, of a folder, of a release of sae-lens, or one that is loaded already.

    Args:
        what: the name of a known model that an SAE ships with; a folder that ``Sae.save``, sae-lens or dictionary_learning
            (``ae.pt`` and ``config.json``) wrote; the name of a release of sae-lens, or a repository of the Hugging Face Hub,
            with ``sae_id``; or an SAE of sae-lens.
        sae_id: which SAE of a release.
        model: whose it is. Needed unless ``Sae.save`` wrote it, and checked if it did.
        site: hook-point name; what the SAE says of itself unless given.
        device: where to put it.

    Raises:
        ValueError: for a missing or damaged folder or release, an SAE without a known model or site, or one of another model,
            site or width, with the numbers.
    """
    if not isinstance(what, str | Path):
        return _of(what, model, site)
    if sae_id is not None:
        return _of(_released(str(what), sae_id, device), model, site)
    folder = Path(what)
    if not folder.is_dir():
        known = known_models()
        shipped = {name: one.sae for name, one in known.items() if one.sae is not None}
        if str(what) not in shipped:
            why = "no SAE ships with it" if str(what) in known else "there is no such folder"
            there = ", ".join(sorted(shipped)) or "none"
            raise ValueError(f"{str(what)!r}: {why}; SAEs ship for {there}; one of a release of sae-lens needs sae_id=")
        folder = shipped[str(what)]
    module = _read(folder, device)
    if not (folder / FILE).exists():
        if model is None:
            raise ValueError(f"{str(folder)!r} has no {FILE}, so it does not say exactly which model it is of: give model=")
        return _of(module, model, site)
    with named_errors(f"{str(folder / FILE)!r} is damaged"):
        plain = typed(parse_json((folder / FILE).read_text(encoding="utf-8")), dict[str, Any])
        if plain.get("format") != FORMAT:
            raise ValueError(f"no SAE of this package (format {plain.get('format')!r})")
        longest = math.inf if plain["longest"] is None else float(plain["longest"])
        known_model = ModelIdentity(**typed(plain["model"], dict[str, str]))
        sae = Sae(module, typed(plain["site"], str), known_model, longest, typed(plain["details"], dict[str, Any]))
        digests = typed(check_digest(plain).get("files", {}), dict[str, str])
        for file in folder.iterdir():
            if file.name in digests and file_hash(file) != digests[file.name]:
                raise ValueError(f"{file.name} was changed after it was written: restore it from a copy")
    if site is not None and site != sae.site:
        raise ValueError(f"this SAE is of {sae.site!r}, not of {site!r}")
    if model is not None:
        sae.check_model(model)
    return sae


def _of(module: Any, model: HookedModel | None, site: str | None) -> Sae:
    """An SAE of sae-lens with the model that the user says it is of."""
    if not all(hasattr(module, name) for name in ("encode", "decode", "W_dec", "cfg")):
        raise ValueError(f"a {type(module).__name__} is no SAE: give one of sae-lens, a folder, or the name of a release")
    if model is None:
        raise ValueError("an SAE that this package did not write does not say exactly which model it is of: give model=")
    metadata = module.cfg.metadata
    told, written = getattr(metadata, "hook_name", None), getattr(metadata, "hook_name_out", None)
    if getattr(module.cfg, "d_out", None) is not None or written not in (None, told):
        raise ValueError(
            f"this is a transcoder, which reads {told!r} and writes {written or 'another site'!r}: only SAEs are taken, which "
            "read and write one site"
        )
    how = {k: v for k, v in (getattr(metadata, "model_from_pretrained_kwargs", None) or {}).items() if k in PROCESSING and v}
    if how and identity(model).processing == "none":
        raise ValueError(
            f"this SAE is of a model whose weights were processed ({', '.join(how)}), and those of {identity(model).name} are "
            "as stored: wrap the model with transformer-lens in that way, and pass it as model="
        )
    if site is not None and told is not None and site != told:
        raise ValueError(f"this SAE is of {told!r}, not of {site!r}")
    where = site if site is not None else told
    if where is None:
        raise ValueError("this SAE does not say which hook point it is of: give site=")
    if getattr(module, "hook_z_reshaping_mode", False):
        module.turn_off_forward_pass_hook_z_reshaping()  # rows of heads lie side by side here
    sae = Sae(module.eval(), check_site(model, where), identity(model))
    sae.check_model(model)
    return sae


def _read(folder: Path, device: str) -> Any:
    from safetensors import SafetensorError

    foreign = is_dictionary(folder)
    maker = "dictionary_learning" if foreign else "sae-lens"
    with quiet_sae_lens(*OF_CHANGES), named_errors(f"{str(folder)!r} holds no whole SAE of {maker}"):
        from sae_lens import SAE

        try:
            module = (read_dictionary if foreign else SAE.load_from_disk)(folder, device=device).eval()
            if not getattr(module, "hook_z_reshaping_mode", False):  # a wrong setting shows when it is used
                with torch.no_grad():
                    module.decode(module.encode(torch.zeros(1, module.cfg.d_in, device=device, dtype=module.W_dec.dtype)))
            return module
        except SafetensorError as error:
            raise ValueError(first_line(error)) from error


def _released(release: str, sae_id: str, device: str) -> Any:
    with quiet_sae_lens(*OF_CHANGES):
        from sae_lens import SAE

        try:
            return SAE.from_pretrained(release, sae_id, device=device).eval()
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(
                f"cannot load {sae_id!r} of {release!r}: {first_line(error)} (a release needs the network, or a copy "
                "in the hub's cache)"
            ) from error


@contextmanager
def quiet_sae_lens(*kinds: type[Warning]) -> Iterator[None]:
    """Without the warnings of some kinds that sae-lens gives; of all kinds, unless some are named.

    Raises:
        ValueError: if sae-lens is not installed.
    """
    if find_spec("sae_lens") is None:
        raise ValueError("SAEs need sae-lens, which needs transformer-lens 3: pip install sae-lens 'transformer-lens<4'")
    with warnings.catch_warnings():
        for kind in kinds or (Warning,):
            warnings.simplefilter("ignore", kind)
        yield
