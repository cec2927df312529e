//! One step as a device sees it: tokens, block tables, and what is to be done with the logits.

/// One request's part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRow {
    /// First token of the row in [`Batch::tokens`].
    pub start: usize,
    /// Tokens of the row in this step, at least 1.
    pub len: usize,
    /// Tokens of the request already in the cache; the row's first token has this position.
    pub context: usize,
}

/// A packed step: rows of any length >= 1 side by side.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Ids; 0 where one comes from a sample slot.
    pub tokens: Vec<u32>,
    /// Position of each token in its request.
    pub positions: Vec<u32>,
    pub rows: Vec<BatchRow>,
    /// Block ids; the table of row `r` in group `g` is `tables[table_starts[r*groups+g]..table_starts[r*groups+g+1]]`
    /// and covers at least `context + len` tokens (entries that left a window may be any id).
    pub tables: Vec<u32>,
    /// `rows.len() * groups + 1` offsets into `tables`.
    pub table_starts: Vec<usize>,
    /// Indices into `tokens` whose logits are computed, ascending. A row of logits comes to the host unless a sample row
    /// says otherwise.
    pub logit_rows: Vec<u32>,
    /// Tokens that an earlier step sampled and that the host has not seen, ascending by `token`.
    pub feeds: Vec<Feed>,
    /// Logit rows that the device samples, ascending by `row`, each slot at most once.
    pub samples: Vec<SampleRow>,
    /// Of all sample rows, one range after the other.
    pub adjustments: Vec<Adjustment>,
}

impl Batch {
    /// The block table of `row` in `group` of `groups`.
    #[must_use]
    pub fn table(&self, row: usize, group: usize, groups: usize) -> &[u32] {
        let at = row * groups + group;
        &self.tables[self.table_starts[at]..self.table_starts[at + 1]]
    }

    /// The adjustments of a sample row.
    #[must_use]
    pub fn adjustments(&self, row: &SampleRow) -> &[Adjustment] {
        let first = row.first_adjustment as usize;
        &self.adjustments[first..first + row.adjustments as usize]
    }

    /// Indices into `logit_rows` of those that come to the host, ascending.
    pub fn host_rows(&self) -> impl Iterator<Item = u32> {
        let mut samples = self.samples.iter().peekable();
        (0..self.logit_rows.len() as u32)
            .filter(move |at| samples.next_if(|sample| sample.row == *at).is_none_or(|sample| sample.keep_logits))
    }
}

/// A token whose id only the device knows: when the step runs, `tokens[token]` is what sample slot `slot` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feed {
    /// Index into [`Batch::tokens`].
    pub token: u32,
    /// Less than the limits' rows.
    pub slot: u32,
}

/// One token to sample: from logit row `row`, as [`draw`](crate::sampling::draw) does it, into slot `slot`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleRow {
    /// Index into [`Batch::logit_rows`].
    pub row: u32,
    /// Where the token is kept on the device until a later step samples into the same slot; less than the limits' rows.
    /// After a fault it holds some id of the vocabulary.
    pub slot: u32,
    /// The sequence's newest token is unknown to the host and lies in `slot`: it counts as one more generated token in
    /// the penalties. It is read before the new token takes its place.
    pub slot_is_last: bool,
    /// The row of logits, as the model gave it, comes to the host too.
    pub keep_logits: bool,
    /// 0 takes the largest logit; otherwise logits are divided by it.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// 1 keeps all.
    pub top_p: f32,
    /// 0 keeps all.
    pub min_p: f32,
    pub repetition_penalty: f32,
    pub presence_penalty: f32,
    pub frequency_penalty: f32,
    /// Key, sequence and position of the counter-based generator.
    pub seed: u64,
    pub sequence: u32,
    pub position: u32,
    /// First in [`Batch::adjustments`], and how many.
    pub first_adjustment: u32,
    pub adjustments: u32,
}

/// A change to one logit before sampling. Those of a row ascend by token, those of one token stand in the order in which
/// they apply. None changes a logit that is -inf, and a result above `f32::MAX` becomes `f32::MAX`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adjustment {
    /// Less than the vocabulary's size.
    pub token: u32,
    pub change: Change,
}

/// What happens to a logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// The token is in the prompt or the output, `generated` times in the output: the row's penalties apply. First of its
    /// token, and at most once. The token in a slot that [is last](SampleRow::slot_is_last) counts as one more; without an
    /// entry here as the first one.
    Seen { generated: u32 },
    /// Added; finite or -inf.
    Bias(f32),
    /// The logit becomes -inf.
    Ban,
}
