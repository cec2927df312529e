//! What a batch must promise before any kernel runs.

use crate::backend::Batch;
use crate::engine::{BLOCK_TOKENS, Limits, Plan};
use crate::error::{Error, Result};

/// Checks a batch against the limits and the plan, so that kernels may index without looking. `sampling` is what
/// [`Forward::sampling`](super::Forward::sampling) says.
pub(super) fn check_batch(batch: &Batch, plan: &Plan, limits: &Limits, sampling: Option<usize>) -> Result<()> {
    let wrong = |what: &str, why: String| Err(Error::argument(format!("batch.{what}"), why));
    let tokens = batch.tokens.len();
    if tokens > limits.tokens || batch.rows.len() > limits.rows || batch.logit_rows.len() > limits.logit_rows {
        let why = format!("{tokens} tokens, {} rows, {} logit rows", batch.rows.len(), batch.logit_rows.len());
        return wrong("size", format!("{why} exceed {limits:?}"));
    }
    if let Some(id) = batch.tokens.iter().find(|id| **id as usize >= plan.model.vocab_size) {
        return wrong("tokens", format!("{id} is outside the vocabulary of {}", plan.model.vocab_size));
    }
    if batch.positions.len() != tokens {
        return wrong("positions", format!("{} positions for {tokens} tokens", batch.positions.len()));
    }
    if batch.logit_rows.iter().any(|row| *row as usize >= tokens) || !batch.logit_rows.is_sorted() {
        return wrong("logit_rows", "indices must ascend and lie within the tokens".into());
    }
    check_sampling(batch, plan, limits, sampling)?;
    check_rows(batch, plan, limits)
}

fn check_sampling(batch: &Batch, plan: &Plan, limits: &Limits, sampling: Option<usize>) -> Result<()> {
    let wrong = |what: &str, why: &str| Err(Error::argument(format!("batch.{what}"), why));
    let Some(most) = sampling else {
        let none = batch.feeds.is_empty() && batch.samples.is_empty();
        return if none { Ok(()) } else { wrong("samples", "this model does not sample") };
    };
    let feeds = &batch.feeds;
    if !feeds.is_sorted_by(|a, b| a.token < b.token)
        || feeds.iter().any(|f| f.token as usize >= batch.tokens.len() || f.slot as usize >= limits.rows)
    {
        return wrong("feeds", "they must ascend and lie within tokens and slots");
    }
    let samples = &batch.samples;
    if !samples.is_sorted_by(|a, b| a.row < b.row)
        || samples.iter().any(|s| s.row as usize >= batch.logit_rows.len() || s.slot as usize >= limits.rows)
    {
        return wrong("samples", "they must ascend and lie within logit rows and slots");
    }
    let mut end = 0;
    let follows = samples.iter().all(|s| {
        let start = std::mem::replace(&mut end, s.first_adjustment as usize + s.adjustments as usize);
        start == s.first_adjustment as usize
    });
    if !follows || end != batch.adjustments.len() || end > most {
        return wrong("adjustments", "they must be the sample rows' ranges one after the other, within the limit");
    }
    if batch.adjustments.iter().any(|a| a.token as usize >= plan.model.vocab_size) {
        return wrong("adjustments", "a token is outside the vocabulary");
    }
    Ok(())
}

fn check_rows(batch: &Batch, plan: &Plan, limits: &Limits) -> Result<()> {
    let wrong = |why: String| Err(Error::argument("batch.rows", why));
    let groups = plan.kv_groups.len();
    let starts = &batch.table_starts;
    if starts.len() != batch.rows.len() * groups + 1
        || starts.first() != Some(&0)
        || starts.last() != Some(&batch.tables.len())
        || !starts.is_sorted()
    {
        return wrong("table offsets do not cover the tables".into());
    }
    let mut next = 0;
    for (index, row) in batch.rows.iter().enumerate() {
        if row.start != next || row.len == 0 || row.len > batch.tokens.len() - next {
            return wrong(format!("row {index} does not follow its predecessor or is empty"));
        }
        next += row.len;
        let end = row.context.checked_add(row.len).filter(|end| *end <= plan.model.max_positions);
        let Some(end) = end else {
            return wrong(format!("row {index} passes the last position {}", plan.model.max_positions));
        };
        let positions = &batch.positions[row.start..next];
        if positions.iter().enumerate().any(|(i, position)| *position as usize != row.context + i) {
            return wrong(format!("row {index} has positions that do not continue its context"));
        }
        for group in 0..groups {
            let table = batch.table(index, group, groups);
            if table.len() < end.div_ceil(BLOCK_TOKENS) {
                return wrong(format!("row {index} has {} blocks for {end} tokens", table.len()));
            }
            if table.iter().any(|block| *block as usize >= limits.kv_blocks) {
                return wrong(format!("row {index} names a block outside the pool of {}", limits.kv_blocks));
            }
        }
    }
    if next != batch.tokens.len() {
        return wrong(format!("rows cover {next} of {} tokens", batch.tokens.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Adjustment, BatchRow, Change, Feed, SampleRow};
    use crate::engine::{KvGroup, ModelInfo, Precision, Target};
    use crate::types::DType;

    fn plan() -> Plan {
        let model = ModelInfo {
            architecture: "Test".into(),
            vocab_size: 10,
            hidden_size: 4,
            layers: 1,
            max_positions: 40,
            eos_token_ids: vec![],
            bos_token_id: None,
        };
        let group = KvGroup { layers: vec![0], kv_heads: 1, head_dim: 8, dtype: DType::F32, window: None };
        Plan {
            target: Target::Cpu,
            precision: Precision::F32,
            invariant: false,
            model,
            values: vec![],
            slots: vec![],
            weights: vec![],
            kv_groups: vec![group],
            steps: vec![],
            outputs: vec![],
        }
    }

    fn batch() -> Batch {
        Batch {
            tokens: vec![1, 2, 3],
            positions: vec![15, 16, 0],
            rows: vec![BatchRow { start: 0, len: 2, context: 15 }, BatchRow { start: 2, len: 1, context: 0 }],
            tables: vec![0, 1, 2],
            table_starts: vec![0, 2, 3],
            logit_rows: vec![1, 2],
            ..Batch::default()
        }
    }

    /// The same batch where the device knows token 2 and samples the last row.
    fn sampled() -> Batch {
        let sample = SampleRow {
            row: 1,
            slot: 3,
            slot_is_last: true,
            keep_logits: false,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 1.0,
            frequency_penalty: 0.0,
            seed: 0,
            sequence: 0,
            position: 1,
            first_adjustment: 0,
            adjustments: 2,
        };
        let adjustment = |token| Adjustment { token, change: Change::Seen { generated: 1 } };
        Batch {
            feeds: vec![Feed { token: 2, slot: 3 }],
            samples: vec![sample],
            adjustments: vec![adjustment(4), adjustment(9)],
            ..batch()
        }
    }

    const LIMITS: Limits = Limits { tokens: 8, logit_rows: 4, rows: 4, kv_blocks: 3 };

    fn refused(change: impl FnOnce(&mut Batch)) -> String {
        let mut batch = batch();
        change(&mut batch);
        check_batch(&batch, &plan(), &LIMITS, None).expect_err("the batch is wrong").to_string()
    }

    fn refused_sampling(change: impl FnOnce(&mut Batch)) -> String {
        let mut batch = sampled();
        change(&mut batch);
        check_batch(&batch, &plan(), &LIMITS, Some(2)).expect_err("the batch is wrong").to_string()
    }

    #[test]
    fn accepts_a_sound_batch() {
        assert_eq!(check_batch(&batch(), &plan(), &LIMITS, None), Ok(()));
        assert_eq!(check_batch(&sampled(), &plan(), &LIMITS, Some(2)), Ok(()));
    }

    #[test]
    fn names_what_is_wrong() {
        assert!(refused(|b| b.tokens[0] = 10).contains("batch.tokens"));
        assert!(refused(|b| b.positions[1] = 3).contains("row 0"));
        assert!(refused(|b| b.logit_rows = vec![2, 1]).contains("batch.logit_rows"));
        assert!(refused(|b| b.tables[2] = 3).contains("outside the pool"));
        assert!(refused(|b| b.rows[1].start = 1).contains("row 1"));
        assert!(refused(|b| b.rows[0].context = usize::MAX).contains("last position"));
        assert!(refused(|b| b.table_starts = vec![0, 1, 3]).contains("1 blocks for 17 tokens"));
        assert!(refused(|b| b.logit_rows = vec![0, 0, 0, 0, 0]).contains("batch.size"));
    }

    #[test]
    fn names_what_is_wrong_with_sampling() {
        let unable = check_batch(&sampled(), &plan(), &LIMITS, None).expect_err("it does not sample");
        assert!(unable.to_string().contains("batch.samples"));
        assert!(refused_sampling(|b| b.feeds[0].token = 3).contains("batch.feeds"));
        assert!(refused_sampling(|b| b.feeds[0].slot = 4).contains("batch.feeds"));
        assert!(refused_sampling(|b| b.samples[0].row = 2).contains("batch.samples"));
        assert!(refused_sampling(|b| b.samples[0].slot = 4).contains("batch.samples"));
        assert!(refused_sampling(|b| b.samples[0].adjustments = 1).contains("batch.adjustments"));
        assert!(refused_sampling(|b| b.samples[0].first_adjustment = 1).contains("batch.adjustments"));
        assert!(refused_sampling(|b| b.adjustments[1].token = 10).contains("batch.adjustments"));
    }

    #[test]
    fn sampled_rows_stay_on_the_device() {
        let mut batch = sampled();
        assert_eq!(batch.host_rows().collect::<Vec<_>>(), [0]);
        batch.samples[0].keep_logits = true;
        assert_eq!(batch.host_rows().collect::<Vec<_>>(), [0, 1]);
    }
}
