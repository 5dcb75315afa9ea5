"""Helpers of a kernel are typed and lowered, and optimised only within the kernel that they are linked into.

numba optimises each function by itself, and again at each level that inlines it, and makes machine code of each. For
functions that compiled code alone calls all of that but the last is thrown away. Here they are left as they were
lowered; the entry point optimises everything once. It took half of the compiler's time.

This stands on numba's own classes (`CompilerBase` is documented, the others are not). It has been run with numba 0.61.2
and 0.68.1; `tests/compiled` compiles and runs kernels through it.
"""

from __future__ import annotations

from typing import Any

from numba import _dynfunc  # type: ignore[attr-defined]
from numba.core import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering


class LinkedLibrary(JITCodeLibrary):
    """Code to be linked into others; it is neither optimised nor made into machine code."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class LinkedLowering(NativeLowering):
    """Lowering into a `LinkedLibrary`."""

    _name = "linked_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = LinkedLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        lowered = state["cr"]
        described = lowered.fndesc
        name = described.qualname.split(".")[-1]
        nothing = _dynfunc.make_function(described.lookup_module(), name, "", 0, lowered.env, (state.library,))
        state.targetctx.insert_user_function(nothing, described, [state.library])
        state["cr"] = lowered._replace(cfunc=nothing)
        return True


class LinkedCompiler(CompilerBase):
    """numba's compiler with `LinkedLowering` in the place of its own."""

    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(LinkedLowering, NativeLowering)
        passes.passes = [each for each in passes.passes if each[0] is not NativeLowering]
        passes.finalize()
        return [passes]


def with_one_integer_type(dispatcher: Any) -> Any:
    """The same function, which takes every integer as int64: it is compiled once, not for each width and constant."""
    template = dispatcher.get_call_template

    def get_call_template(args: Any, kws: Any) -> Any:
        return template(tuple(map(_widened, args)), kws)

    dispatcher.get_call_template = get_call_template
    return dispatcher


def _widened(kind: Any) -> Any:
    whole = isinstance(kind, types.Integer | types.IntegerLiteral) and not isinstance(kind, types.Boolean)
    return types.int64 if whole and kind is not types.uint64 else kind
