//! Which instruction set the kernels use, chosen at run time.

use std::fmt;
use std::str::FromStr;

use super::compiled::{Compiled, PORTABLE};
use crate::error::{Error, Result};

/// An instruction set for which kernels were compiled. Results are bit-identical on one of them, and close between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// What every machine of the architecture has.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with bf16 dot products: activations of linear layers with bf16 weights are rounded to bf16.
    Avx512Bf16,
}

impl Isa {
    /// Every instruction set this library knows, slowest first.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];

    /// The fastest instruction set of this machine: the last one it has, or AVX-512 where bf16 dot products are slow.
    #[must_use]
    pub fn detect() -> Isa {
        match Self::ALL.into_iter().rev().find(|isa| isa.compiled().is_some()) {
            #[cfg(target_arch = "x86_64")]
            Some(Isa::Avx512Bf16) if super::x86::dot_products_are_slow() => Isa::Avx512,
            found => found.unwrap_or(Isa::Portable),
        }
    }

    /// The instruction sets of this machine, slowest first.
    #[must_use]
    pub fn available() -> Vec<Isa> {
        Self::ALL.into_iter().filter(|isa| isa.compiled().is_some()).collect()
    }

    /// The name by which [`FromStr`] finds it: `portable`, `avx2`, `avx512`, `avx512bf16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
        }
    }

    /// The kernels compiled for it; `None` where the machine lacks it.
    pub(super) fn compiled(self) -> Option<&'static Compiled> {
        match self {
            Isa::Portable => Some(&PORTABLE),
            #[cfg(target_arch = "x86_64")]
            isa => super::x86::compiled(isa),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Isa::name).join(", ");
            Error::argument("isa", format!("`{name}` is none of {known}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse::<Isa>(), Ok(isa));
        }
        assert!("avx1024".parse::<Isa>().unwrap_err().to_string().contains("avx1024"));
    }

    #[test]
    fn the_detected_one_is_available() {
        let available = Isa::available();
        assert_eq!(available.first(), Some(&Isa::Portable));
        assert!(available.contains(&Isa::detect()));
        assert!(available.len() == 1 || Isa::detect() != Isa::Portable);
    }
}
