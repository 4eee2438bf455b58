"""Functions that only kernels call: handed to their callers as they are, so that LLVM sees their code once.

Numba optimises every function and turns it into machine code, and then does both again for each of its callers,
together with all that these call. A part five calls deep in a kernel was worked on six times, with two wrappers of its
own, for entries that nobody used.
"""

from numba import njit
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering


class _Unfinished(JITCodeLibrary):
    """Code that waits for a kernel to link it."""

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):
    """Numba's last step, as far as code in LLVM's language."""

    _name = "merged_lowering"

    def run_pass(self, state):
        state.library = _Unfinished(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        name = object()  # by which callers ask for the code
        state.targetctx.insert_user_function(name, state.cr.fndesc, [state.library])
        state.cr = state.cr._replace(cfunc=name)
        return True


class _Compiler(CompilerBase):
    def define_pipelines(self):
        steps = DefaultPassBuilder.define_nopython_pipeline(self.state)
        steps.passes = [(_Lowering if step is NativeLowering else step, text) for step, text in steps.passes]
        return [steps]


def merged(function, **options):
    """As `numba.njit`, for a function that is compiled as a part of its callers; Python cannot call it."""
    dispatcher = njit(pipeline_class=_Compiler, no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)(function)

    def refuse(*args, **kwargs):
        raise TypeError(f"{function.__name__} is a part of kernels and can only be called from one")

    dispatcher._insert = lambda *entry: None  # Numba's table of what Python can call
    dispatcher._compile_for_args = refuse
    return dispatcher
