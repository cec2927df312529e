//! A weight matrix in panels: where its words and its scales lie.

use super::expand::Expand;
use crate::engine::{Granularity, PANEL, Packing, SCALE_BLOCK};
use crate::types::DType;

/// A matrix `[n, k]` in panels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panels {
    pub address: usize,
    pub dtype: DType,
    pub n: usize,
    pub k: usize,
    pub scales: Option<Scales>,
}

/// Scales of a matrix: f32, as many as their granularity says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scales {
    pub address: usize,
    pub granularity: Granularity,
}

impl Panels {
    /// Neighbouring elements of a row that share a 4-byte word.
    pub(super) fn elements_per_word(&self) -> usize {
        4 / self.dtype.bytes()
    }

    /// 4-byte words of one panel.
    pub(super) fn panel_words(&self) -> usize {
        let columns = Packing::padded_columns(self.k, self.dtype).expect("the weight's size was computed from it");
        PANEL * columns * self.dtype.bytes() / 4
    }

    pub(super) fn count(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    /// Start of a panel.
    ///
    /// # Safety
    /// The weight is alive and `panel < self.count()`.
    pub(super) unsafe fn panel(&self, panel: usize) -> *const u32 {
        // SAFETY: the weight's region was checked to hold all panels.
        unsafe { (self.address as *const u32).add(panel * self.panel_words()) }
    }

    /// Widens `elements` columns of a panel from column `from`, a multiple of [`SCALE_BLOCK`], to f32 `[elements][PANEL]`;
    /// the last word is widened whole.
    ///
    /// # Safety
    /// As [`Panels::panel`], for the scales too; the machine has what `expand` was compiled for; `out` has room.
    pub(super) unsafe fn expand(
        &self,
        expand: unsafe fn(&Expand),
        panel: usize,
        from: usize,
        elements: usize,
        out: *mut f32,
    ) {
        let scales = self.scales.filter(|_| !self.scales_sums());
        let by_block = scales.is_some_and(|scales| scales.granularity == Granularity::Block);
        let step = if by_block { SCALE_BLOCK } else { elements };
        for start in (0..elements).step_by(step) {
            let count = step.min(elements - start);
            // SAFETY: the caller's; the columns lie within the panel.
            unsafe {
                let scales = scales.map(|scales| self.scales_at(scales, panel, from + start));
                expand(&Expand {
                    panel: self.panel(panel).add((from + start) / self.elements_per_word() * PANEL),
                    words: count.div_ceil(self.elements_per_word()),
                    scales: scales.as_ref().map_or(std::ptr::null(), |scales| scales.as_ptr()),
                    out: out.add(start * PANEL),
                });
            }
        }
    }

    /// Whether scales multiply sums instead of elements.
    fn scales_sums(&self) -> bool {
        self.dtype == DType::I8
    }

    /// Scales of the sums of a panel's rows; none where elements are scaled already, or have no scales.
    ///
    /// # Safety
    /// As [`Panels::expand`].
    pub(super) unsafe fn scales_of_sums(&self, panel: usize) -> Option<[f32; PANEL]> {
        let scales = self.scales.filter(|_| self.scales_sums());
        // SAFETY: the caller's.
        scales.map(|scales| unsafe { self.scales_at(scales, panel, 0) })
    }

    /// Scales of a panel's rows in the block of columns around `column`; rows that do not exist get any.
    ///
    /// # Safety
    /// As [`Panels::expand`].
    unsafe fn scales_at(&self, scales: Scales, panel: usize, column: usize) -> [f32; PANEL] {
        let start = scales.address as *const f32;
        let row = panel * PANEL;
        // SAFETY: the scales' region was checked to hold one for each row, or for each block.
        unsafe {
            match scales.granularity {
                Granularity::Row => std::array::from_fn(|at| *start.add((row + at).min(self.n - 1))),
                Granularity::Block => {
                    let at = row / SCALE_BLOCK * self.k.div_ceil(SCALE_BLOCK) + column / SCALE_BLOCK;
                    [*start.add(at); PANEL]
                }
            }
        }
    }
}

// A panel lies within one row of blocks.
const _: () = assert!(SCALE_BLOCK.is_multiple_of(PANEL));
