"""Functions that only kernels call: handed to their callers as they are, so that LLVM sees their code once.

Numba optimises every function and turns it into machine code, and then does both again for each of its callers,
together with all that these call. A part five calls deep in a kernel was worked on six times, with two wrappers of its
own, for entries that nobody used.

This reaches into Numba, where any version may change what is not documented. Where something of it is missing,
functions are compiled in the ordinary way: the same results, after a compilation that takes longer.
"""

from numba import njit


def known(options):
    """Those options that this Numba knows; it would refuse the others at the first call."""
    try:
        from numba.core.options import DefaultOptions
    except ImportError:
        return {name: value for name, value in options.items() if name in ("nogil", "error_model", "fastmath")}
    return {name: value for name, value in options.items() if hasattr(DefaultOptions, name)}


def _make_compiler():
    """A compiler whose last step goes as far as code in LLVM's language.

    Raises
    ------
    ImportError, AttributeError
        If Numba lacks what it takes.
    """
    from numba.core.base import BaseContext
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import CompilerBase, DefaultPassBuilder, Flags
    from numba.core.compiler_machinery import register_pass
    from numba.core.dispatcher import Dispatcher
    from numba.core.typed_passes import NativeLowering

    for owner, name in (
        (JITCodeLibrary, "_optimize_final_module"),
        (JITCodeLibrary, "_finalize_final_module"),
        (JITCodeLibrary, "_finalized"),
        (Flags, "no_compile"),
        (BaseContext, "insert_user_function"),
        (DefaultPassBuilder, "define_nopython_pipeline"),
        (Dispatcher, "_insert"),
        (Dispatcher, "_compile_for_args"),
    ):
        getattr(owner, name)

    class Unfinished(JITCodeLibrary):
        """Code that waits for a kernel to link it."""

        def _optimize_final_module(self):
            pass

        def _finalize_final_module(self):
            self._finalized = True

    @register_pass(mutates_CFG=True, analysis_only=False)
    class Lowering(NativeLowering):
        _name = "merged_lowering"

        def run_pass(self, state):
            state.library = Unfinished(state.targetctx.codegen(), state.func_id.func_qualname)
            state.flags.no_compile = True
            super().run_pass(state)
            if not state.flags.forceinline:  # LLVM would copy it into its callers
                function = state.library._final_module.get_function(state.cr.fndesc.llvm_func_name)
                function.add_function_attribute("noinline")
            name = object()  # by which callers ask for the code
            state.targetctx.insert_user_function(name, state.cr.fndesc, [state.library])
            state.cr = state.cr._replace(cfunc=name)
            return True

    class Compiler(CompilerBase):
        def define_pipelines(self):
            steps = DefaultPassBuilder.define_nopython_pipeline(self.state)
            steps.passes = [(Lowering if step is NativeLowering else step, text) for step, text in steps.passes]
            return [steps]

    return Compiler


try:
    COMPILER = _make_compiler()
except (ImportError, AttributeError):
    COMPILER = None


def merged(function, **options):
    """As `numba.njit`, for a function that is compiled as a part of its callers; Python cannot call it."""
    if COMPILER is None:
        return njit(**known(options))(function)
    dispatcher = njit(pipeline_class=COMPILER, no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)(function)

    def refuse(*args, **kwargs):
        raise TypeError(f"{function.__name__} is a part of kernels and can only be called from one")

    dispatcher._insert = lambda *entry: None  # Numba's table of what Python can call
    dispatcher._compile_for_args = refuse
    return dispatcher
