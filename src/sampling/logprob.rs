//! Log-probabilities of the model's own distribution.

use crate::error::Result;
use crate::types::heap;

/// A token and its log-probability (natural logarithm, before penalties, bias, temperature and filters). Laid out as in C.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    pub token: u32,
    pub logprob: f32,
}

/// Log-probabilities that belong to one generated token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenInfo<'a> {
    pub chosen: TokenLogprob,
    /// The most likely tokens, most likely first; equal ones by ascending id.
    pub top: &'a [TokenLogprob],
}

/// Log-probabilities of consecutive tokens of one sequence, which have equally many likely tokens each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Logprobs {
    /// One for each token.
    pub chosen: Vec<TokenLogprob>,
    /// `top_per_token` for each token.
    pub top: Vec<TokenLogprob>,
    pub top_per_token: usize,
}

impl Logprobs {
    /// Token by token.
    pub fn iter(&self) -> impl Iterator<Item = TokenInfo<'_>> {
        let top = |at: usize| &self.top[at * self.top_per_token..(at + 1) * self.top_per_token];
        self.chosen.iter().enumerate().map(move |(at, chosen)| TokenInfo { chosen: *chosen, top: top(at) })
    }

    /// Appends the next token's.
    ///
    /// # Errors
    /// `OutOfMemory`; nothing was appended then.
    pub fn push(&mut self, info: TokenInfo<'_>) -> Result<()> {
        self.reserve(1, info.top.len())?;
        self.chosen.push(info.chosen);
        self.top.extend_from_slice(info.top);
        self.top_per_token = info.top.len();
        Ok(())
    }

    /// Appends those of the next tokens of the same sequence.
    ///
    /// # Errors
    /// `OutOfMemory`; nothing was appended then.
    pub fn append(&mut self, next: &Logprobs) -> Result<()> {
        self.reserve(next.chosen.len(), next.top.len())?;
        self.chosen.extend_from_slice(&next.chosen);
        self.top.extend_from_slice(&next.top);
        self.top_per_token = next.top_per_token;
        Ok(())
    }

    /// Room for more entries.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn reserve(&mut self, chosen: usize, top: usize) -> Result<()> {
        heap::reserve(&mut self.chosen, chosen, "log-probabilities")?;
        heap::reserve(&mut self.top, top, "log-probabilities")
    }

    /// Empties it; the memory stays.
    pub fn clear(&mut self) {
        self.chosen.clear();
        self.top.clear();
        self.top_per_token = 0;
    }
}

impl<'a> TokenInfo<'a> {
    /// The entry of `token` and of the `count` most likely tokens of a row whose largest value is `max`.
    /// `order` and `top` are scratch memory of any content.
    pub(super) fn of(
        logits: &[f32],
        max: f32,
        token: u32,
        count: usize,
        order: &mut Vec<u32>,
        top: &'a mut Vec<TokenLogprob>,
    ) -> Self {
        let sum: f64 = logits.iter().map(|&l| (f64::from(l) - f64::from(max)).exp()).sum();
        let normaliser = f64::from(max) + sum.ln();
        let entry =
            |token: u32| TokenLogprob { token, logprob: (f64::from(logits[token as usize]) - normaliser) as f32 };
        top.clear();
        top.extend(most_likely(logits, count, order).iter().map(|&t| entry(t)));
        Self { chosen: entry(token), top }
    }
}

fn most_likely<'a>(logits: &[f32], count: usize, order: &'a mut Vec<u32>) -> &'a [u32] {
    let count = count.min(logits.len());
    if count == 0 {
        return &[];
    }
    order.clear();
    order.extend(0..logits.len() as u32);
    let by_likelihood = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    order.select_nth_unstable_by(count - 1, by_likelihood);
    let top = &mut order[..count];
    top.sort_unstable_by(by_likelihood);
    top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emptied_memory_says_nothing_of_what_it_held() {
        let entry = TokenLogprob { token: 1, logprob: -0.5 };
        let mut logprobs = Logprobs::default();
        logprobs.push(TokenInfo { chosen: entry, top: &[entry; 3] }).expect("memory");
        logprobs.clear();
        assert_eq!(logprobs, Logprobs::default());
    }
}
