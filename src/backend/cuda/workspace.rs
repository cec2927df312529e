//! Places for the buffers of a list of works: those that are never needed together share memory.

use super::work::{Buffer, Works};
use crate::engine::{Limits, Rows};

/// Multiple at which buffers start: what bulk copies and tensor maps want.
const ALIGNMENT: usize = 256;

/// Where each buffer lies in the workspace.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Workspace {
    /// By buffer; unused buffers lie at 0.
    pub(super) offsets: Vec<usize>,
    pub(super) bytes: usize,
}

impl Workspace {
    /// Plans the buffers of `works` for the largest step.
    pub(super) fn new(works: &Works, limits: &Limits) -> Self {
        let lifetimes = lifetimes(works);
        let mut placed: Vec<Placed> = Vec::new();
        let mut offsets = vec![0; works.buffers.len()];
        let mut order: Vec<usize> = (0..works.buffers.len()).filter(|index| lifetimes[*index].is_some()).collect();
        // Large ones first: the small ones then fill the gaps.
        order.sort_by_key(|index| std::cmp::Reverse(bytes(&works.buffers[*index], limits)));
        for index in order {
            let (Some((first, last)), size) = (lifetimes[index], bytes(&works.buffers[index], limits)) else {
                continue;
            };
            let mut offset = 0;
            // Neighbours in time, by place: the first gap that is large enough.
            let mut busy: Vec<&Placed> = placed.iter().filter(|p| p.first <= last && first <= p.last).collect();
            busy.sort_by_key(|p| p.offset);
            for other in busy {
                if offset + size <= other.offset {
                    break;
                }
                offset = offset.max(other.offset + other.bytes);
            }
            offsets[index] = offset;
            placed.push(Placed { offset, bytes: size, first, last });
        }
        let bytes = placed.iter().map(|p| p.offset + p.bytes).max().unwrap_or(0);
        Self { offsets, bytes }
    }
}

struct Placed {
    offset: usize,
    bytes: usize,
    first: usize,
    last: usize,
}

fn bytes(buffer: &Buffer, limits: &Limits) -> usize {
    let rows = match buffer.rows {
        Rows::Tokens => limits.tokens,
        Rows::LogitRows => limits.logit_rows,
    };
    (rows * buffer.columns * buffer.dtype.bytes()).next_multiple_of(ALIGNMENT)
}

/// First and last work that touches each buffer; the logits are needed after the last one.
fn lifetimes(works: &Works) -> Vec<Option<(usize, usize)>> {
    let mut lifetimes: Vec<Option<(usize, usize)>> = vec![None; works.buffers.len()];
    for (index, work) in works.works.iter().enumerate() {
        let (reads, writes) = work.operands();
        for operand in reads.iter().chain(&writes) {
            let lifetime = lifetimes[operand.buffer].get_or_insert((index, index));
            lifetime.1 = index;
        }
    }
    if let Some(lifetime) = &mut lifetimes[works.logits.buffer] {
        lifetime.1 = works.works.len();
    }
    lifetimes
}
