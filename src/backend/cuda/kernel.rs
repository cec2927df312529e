//! A kernel as it is asked for: a source file of `kernels/` with the macros that specialise it.

use super::driver::Arch;

/// A specialisation. Equal specs are one cubin per arch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelSpec {
    /// Path below `kernels/`, e.g. `linear/gemv.cu`.
    pub source: &'static str,
    /// The entry's name.
    pub entry: &'static str,
    /// `-D` macros in order; an empty value defines the name alone.
    pub defines: Vec<(&'static str, String)>,
}

impl KernelSpec {
    #[must_use]
    pub fn new(source: &'static str, entry: &'static str) -> Self {
        Self { source, entry, defines: Vec::new() }
    }

    /// The spec with one more macro.
    #[must_use]
    pub fn define(mut self, name: &'static str, value: impl ToString) -> Self {
        self.defines.push((name, value.to_string()));
        self
    }

    /// The spec with a macro if `wanted`.
    #[must_use]
    pub fn define_if(self, wanted: bool, name: &'static str, value: impl ToString) -> Self {
        if wanted { self.define(name, value) } else { self }
    }

    /// What people read: `linear/gemv.cu N=4096 K=4096 for sm_90a`.
    #[must_use]
    pub fn describe(&self, arch: Arch) -> String {
        format!("{}{} for {arch}", self.source, self.macros())
    }

    /// The macros, each after a space: ` N=4096 K=4096`.
    #[must_use]
    pub fn macros(&self) -> String {
        let macros = self.defines.iter().map(|(name, value)| match value.as_str() {
            "" => format!(" {name}"),
            value => format!(" {name}={value}"),
        });
        macros.collect()
    }
}
