//! One step under way: the pinned memory that it reads and writes.

use std::sync::Arc;

use super::driver::{Address, Driver};
use super::memory::PinnedMemory;
use super::sample::SampleResult;
use crate::backend::Batch;
use crate::error::Result;

/// A step's memory on the host.
pub(super) struct Flight {
    driver: Arc<dyn Driver>,
    pub(super) input: PinnedMemory,
    results: PinnedMemory,
    /// Rows of logits whose results are on their way.
    rows: usize,
    /// By sample row of the batch: its row of logits.
    sample_rows: Vec<u32>,
    /// Logits that were asked for.
    pub(super) logits: Vec<f32>,
}

impl Flight {
    pub(super) fn new(driver: &Arc<dyn Driver>, input_bytes: usize, logit_rows: usize) -> Result<Self> {
        let input = PinnedMemory::new(driver, input_bytes, "step input")?;
        let results = PinnedMemory::new(driver, results_bytes(logit_rows), "sampled tokens")?;
        Ok(Self {
            driver: Arc::clone(driver),
            input,
            results,
            rows: 0,
            sample_rows: Vec::with_capacity(logit_rows),
            logits: Vec::new(),
        })
    }

    /// Page-locked bytes.
    pub(super) fn bytes(&self) -> usize {
        self.input.bytes + self.results.bytes
    }

    /// What [`Flight::bytes`] will be.
    pub(super) fn bytes_for(input_bytes: usize, logit_rows: usize) -> usize {
        input_bytes + results_bytes(logit_rows)
    }

    /// Enqueues what comes back of a step: results of sampling, and the logits that the host wants, for which it waits:
    /// such rows are rare, and pinned memory for them would be large.
    ///
    /// # Safety
    /// The addresses hold results and logits of the batch's rows once the stream comes here.
    pub(super) unsafe fn fetch(
        &mut self,
        batch: &Batch,
        results: Address,
        logits: Address,
        vocab: usize,
    ) -> Result<()> {
        self.sample_rows.clear();
        self.sample_rows.extend(batch.samples.iter().map(|sample| sample.row));
        self.rows = batch.logit_rows.len();
        if !batch.samples.is_empty() {
            // SAFETY: the caller's; the memory has room for the limits' rows.
            unsafe { self.driver.download(self.results.pointer, results, self.rows * size_of::<SampleResult>())? };
        }
        self.logits.clear();
        let mut rows = batch.host_rows().peekable();
        while let Some(first) = rows.next() {
            let mut count = 1;
            while rows.next_if_eq(&(first + count)).is_some() {
                count += 1;
            }
            let (from, elements) = (self.logits.len(), count as usize * vocab);
            self.logits.resize(from + elements, 0.0);
            let source = logits + (first as usize * vocab * 4) as u64;
            // SAFETY: the vector has these elements and is not touched before the step is over.
            unsafe { self.driver.download(self.logits.as_mut_ptr().add(from).cast(), source, elements * 4)? };
            // The vector may move when it grows.
            self.driver.synchronize()?;
        }
        Ok(())
    }

    /// Results by sample row of the batch, once the step is over.
    pub(super) fn results(&self) -> impl Iterator<Item = SampleResult> + '_ {
        // SAFETY: `rows` results were copied there, every bit pattern is one, and the step is over.
        let all = unsafe { std::slice::from_raw_parts(self.results.pointer.cast::<SampleResult>(), self.rows) };
        self.sample_rows.iter().map(|row| all[*row as usize])
    }
}

fn results_bytes(logit_rows: usize) -> usize {
    logit_rows * size_of::<SampleResult>()
}
