//! Log-probabilities of the model's own distribution.

/// A token and its log-probability (natural logarithm, before penalties, bias, temperature and filters).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    pub token: u32,
    pub logprob: f32,
}

/// Log-probabilities that belong to one generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenInfo {
    pub chosen: TokenLogprob,
    /// The most likely tokens, most likely first; equal ones by ascending id.
    pub top: Vec<TokenLogprob>,
}

impl TokenInfo {
    /// The entry of `token` and of the `top` most likely tokens of a row whose largest value is `max`.
    /// `order` is scratch memory of any content.
    pub(super) fn of(logits: &[f32], max: f32, token: u32, top: usize, order: &mut Vec<u32>) -> Self {
        let sum: f64 = logits.iter().map(|&l| (f64::from(l) - f64::from(max)).exp()).sum();
        let normaliser = f64::from(max) + sum.ln();
        let entry =
            |token: u32| TokenLogprob { token, logprob: (f64::from(logits[token as usize]) - normaliser) as f32 };
        Self { chosen: entry(token), top: most_likely(logits, top, order).iter().map(|&t| entry(t)).collect() }
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
