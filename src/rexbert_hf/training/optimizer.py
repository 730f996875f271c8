"""StableAdamW: AdamW whose step is divided by the RMS of its own update where that exceeds 1, tensor by tensor.

Wortsman et al. 2023 (arXiv 2304.13013), algorithm 2, in the form ModernBERT and Ettin trained with: betas .9/.98, eps
1e-6, the RMS taken of g^2 / max(v, eps^2) with the bias-corrected v, the clipped rate also used for weight decay,
which is relative to the peak rate (`decouple_lr`). With every RMS at or below 1 it is AdamW.

Two code paths, one formula: on CPU each tensor is walked in blocks that stay in cache (the optimizer is bound by
memory traffic there), elsewhere `torch._foreach_*` runs over all tensors without a host synchronisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

BLOCK = 1 << 16
"""Elements of a CPU block: four fp32 operands of 256 KiB fit a core's L2 cache."""


def debiased(beta: float, step: int) -> float:
    """The decay that makes a running mean bias-corrected by itself: `(beta - beta^t) / (1 - beta^t)`.

    Example:
        >>> debiased(0.9, 1), round(debiased(0.9, 10_000), 6)
        (0.0, 0.9)
    """
    power = beta**step
    return (beta - power) / (1 - power)


class StableAdamW(torch.optim.Optimizer):
    """AdamW with update clipping by the RMS of each tensor's update, and no gradient-norm clipping needed.

    The moments of bf16 and fp16 parameters are kept in fp32 beside an fp32 copy of the weights (`master`), so that
    small steps are not rounded away. The state dict is torch's; loading it keeps the fp32 state.

    Args:
        params: parameters or groups.
        lr: peak learning rate, of groups without their own.
        betas: decays of the two moments.
        eps: added to the root of the second moment.
        weight_decay: with `decouple_lr` the share of a weight lost a step at the peak rate, else multiplied by the
            rate as in torch's AdamW.
        decouple_lr: make weight decay independent of the peak rate.
        foreach: True or False chooses the code path; None takes blocks on CPU and foreach elsewhere.

    Raises:
        ValueError: if a hyper-parameter is out of range.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = StableAdamW([weight], lr=0.1)
        >>> weight.grad = torch.tensor([1.0, -1.0, 2.0])
        >>> optimizer.step()
        >>> [round(x, 4) for x in weight.tolist()]
        [0.9, 1.1, 0.9]
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        decouple_lr: bool = False,
        foreach: bool | None = None,
    ) -> None:
        if lr < 0:
            raise ValueError(f"lr must not be negative; got {lr}")
        if not (0 <= betas[0] < 1 and 0 <= betas[1] < 1):
            raise ValueError(f"betas must lie in [0, 1); got {betas}")
        if eps <= 0:
            raise ValueError(f"eps must be positive; got {eps}")
        if weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative; got {weight_decay}")
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "decouple_lr": decouple_lr,
            "max_lr": lr,
            "foreach": foreach,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; one with a rate of its own decays relative to that peak, unless it names `max_lr` too.

        A group that begins at 0 (frozen for now) has the optimizer's peak.

        Args:
            param_group: `params`, and options in place of the optimizer's.
        """
        if param_group.get("lr"):
            param_group = {"max_lr": param_group["lr"], **param_group}
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Args:
            closure: evaluates the model again and returns the loss, as in every torch optimizer.

        Raises:
            ValueError: if a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        alike: dict[tuple[int, torch.device], list[nn.Parameter]] = {}
        for param in group["params"]:
            if param.grad is None:
                continue
            if param.grad.is_sparse:
                raise ValueError("StableAdamW takes dense gradients: build the embedding with sparse=False")
            state = self.state[param] or self._init_state(param)
            state["step"] += 1
            alike.setdefault((int(state["step"]), param.device), []).append(param)
        for (step, device), params in alike.items():
            foreach = group["foreach"] if group["foreach"] is not None else device.type != "cpu"
            (self._step_foreach if foreach else self._step_blocks)(group, params, step)

    def _init_state(self, param: nn.Parameter) -> dict[str, Any]:
        state = self.state[param]
        low = param.dtype in (torch.bfloat16, torch.float16)
        dtype = torch.float32 if low else param.dtype
        state["step"] = 0
        state["exp_avg"] = torch.zeros_like(param, dtype=dtype)
        state["exp_avg_sq"] = torch.zeros_like(param, dtype=dtype)
        if low:
            state["master"] = param.detach().to(torch.float32)
        return state

    def _operands(self, param: nn.Parameter) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        state = self.state[param]
        weight = state.get("master", param)
        assert param.grad is not None
        return weight, param.grad.to(weight.dtype), state["exp_avg"], state["exp_avg_sq"]

    def _step_foreach(self, group: dict[str, Any], params: list[nn.Parameter], step: int) -> None:
        beta1, beta2 = (debiased(beta, step) for beta in group["betas"])
        weights, grads, avgs, squares = (list(x) for x in zip(*map(self._operands, params), strict=True))
        torch._foreach_lerp_(avgs, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        denominators = torch._foreach_sqrt(squares)
        ratios = torch._foreach_div(grads, torch._foreach_clamp_min(denominators, group["eps"]))
        # All rates in a few kernels, not a few for each tensor. Multiplying by them is a kernel a tensor all the same:
        # torch joins these only for numbers of the host, for which the device would have to be waited for.
        norms = torch._foreach_norm(ratios)
        del ratios
        torch._foreach_div_(norms, [w.numel() ** 0.5 for w in weights])
        rate = group["lr"] / torch.stack(norms).clamp_(min=1.0)
        decay = _decay_a_rate(group)
        if decay:
            torch._foreach_mul_(weights, (1 - rate * decay).unbind())
        torch._foreach_add_(denominators, group["eps"])
        updates = torch._foreach_div(avgs, denominators)
        torch._foreach_mul_(updates, rate.unbind())
        torch._foreach_sub_(weights, updates)
        self._write_back(params)

    def _step_blocks(self, group: dict[str, Any], params: list[nn.Parameter], step: int) -> None:
        beta1, beta2 = (debiased(beta, step) for beta in group["betas"])
        for param in params:
            weights, grads, avgs, squares = _blocks(self._operands(param))
            total = 0.0
            for m, v, g in zip(avgs, squares, grads, strict=True):
                m.lerp_(g, 1 - beta1)
                v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
                ratio = v.sqrt().clamp_(min=group["eps"]).reciprocal_().mul_(g)
                total += float(ratio.square_().sum())
            rate = group["lr"] / max(1.0, (total / max(1, param.numel())) ** 0.5)
            keep = 1 - rate * _decay_a_rate(group)
            for w, m, v in zip(weights, avgs, squares, strict=True):
                if keep != 1:
                    w.mul_(keep)
                w.addcdiv_(m, v.sqrt().add_(group["eps"]), value=-rate)
        self._write_back(params)

    def _write_back(self, params: list[nn.Parameter]) -> None:
        for param in params:
            master = self.state[param].get("master")
            if master is not None:
                param.copy_(master)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict without rounding the fp32 state of bf16 parameters, which torch's own loader would do."""
        super().load_state_dict(state_dict)
        ids = [i for group in state_dict["param_groups"] for i in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        for i, param in zip(ids, params, strict=True):
            for key, value in state_dict["state"].get(i, {}).items():
                if isinstance(value, Tensor) and value.dtype != self.state[param][key].dtype:
                    self.state[param][key] = value.to(param.device, copy=True)


def _decay_a_rate(group: dict[str, Any]) -> float:
    """Weight decay per unit of learning rate."""
    if group["decouple_lr"]:
        return group["weight_decay"] / group["max_lr"] if group["max_lr"] else 0.0
    return group["weight_decay"]


def _blocks(tensors: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """Aligned flat blocks of each tensor; a tensor whose memory has another order is one block."""
    if not all(x.is_contiguous() for x in (tensors[0], *tensors[2:])):
        return [(x,) for x in tensors]
    return [x.contiguous().view(-1).split(BLOCK) for x in tensors]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two optimizer groups: matrices and embeddings decay; norms and biases do not.

    As ModernBERT does (its embeddings decay: they are matrices, tied to the output layer). A parameter with fewer
    than two dimensions is a norm's weight or a bias, whatever its name. Shared parameters appear once.

    Args:
        model: the model; parameters with `requires_grad=False` are left out.
        weight_decay: decay of the first group.

    Example:
        >>> groups = parameter_groups(torch.nn.Linear(2, 3), 0.1)
        >>> [(len(g["params"]), g["weight_decay"]) for g in groups]
        [(1, 0.1), (1, 0.0)]
    """
    trainable = [param for param in model.parameters() if param.requires_grad]
    return [
        {"params": [param for param in trainable if param.ndim >= 2], "weight_decay": weight_decay},
        {"params": [param for param in trainable if param.ndim < 2], "weight_decay": 0.0},
    ]
