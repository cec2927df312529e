//! Recipes in canonical form, so that equal weights compare equal.

use super::Recipe;

impl Recipe {
    /// The checkpoint tensor `name`.
    pub fn tensor(name: impl Into<String>) -> Self {
        Recipe::Tensor(name.into())
    }

    /// The transpose; a transpose of a transpose is what it began with.
    #[must_use]
    pub fn transposed(self) -> Self {
        match self {
            Recipe::Transpose(of) => *of,
            other => Recipe::Transpose(Box::new(other)),
        }
    }

    /// Rows `start..start+rows` of a matrix, or elements of a vector.
    #[must_use]
    pub fn rows(self, start: usize, rows: usize) -> Self {
        Recipe::Rows { of: Box::new(self), start, rows }
    }

    /// Every element with `addend` more.
    #[must_use]
    pub fn plus(self, addend: f32) -> Self {
        Recipe::Plus { of: Box::new(self), addend }
    }

    /// The parts stacked: nested stacks are flattened, adjacent rows of one matrix become one range, constants join.
    pub fn concat(parts: impl IntoIterator<Item = Recipe>) -> Self {
        let mut joined: Vec<Recipe> = Vec::new();
        for part in parts.into_iter().flat_map(flat) {
            match (joined.last_mut(), part) {
                (Some(Recipe::Rows { of, start, rows }), Recipe::Rows { of: next, start: from, rows: more })
                    if *of == next && *start + *rows == from =>
                {
                    *rows += more;
                }
                (Some(Recipe::Constant(values)), Recipe::Constant(more)) => values.extend(more),
                (_, part) => joined.push(part),
            }
        }
        if joined.len() == 1 { joined.remove(0) } else { Recipe::Concat(joined) }
    }
}

fn flat(part: Recipe) -> Vec<Recipe> {
    match part {
        Recipe::Concat(parts) => parts,
        other => vec![other],
    }
}

impl std::fmt::Display for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Recipe::Tensor(name) => f.write_str(name),
            Recipe::Transpose(of) => write!(f, "transpose({of})"),
            Recipe::Concat(parts) => {
                let parts = parts.iter().map(Recipe::to_string).collect::<Vec<_>>();
                write!(f, "concat({})", parts.join(", "))
            }
            Recipe::Rows { of, start, rows } => write!(f, "{of}[{start}..{}]", start + rows),
            Recipe::Plus { of, addend } => write!(f, "{addend} + {of}"),
            Recipe::Constant(values) => write!(f, "constant({} values)", values.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_rows_join() {
        let fused = || Recipe::tensor("c_attn").transposed();
        let [q, k, v] = [0, 4, 8].map(|start| fused().rows(start, 4));
        assert_eq!(Recipe::concat([q.clone(), k.clone(), v.clone()]), fused().rows(0, 12));
        assert_eq!(Recipe::concat([Recipe::concat([q.clone(), k.clone()]), v.clone()]), fused().rows(0, 12));
        assert_eq!(Recipe::concat([q.clone(), v.clone()]), Recipe::Concat(vec![q, v]));
    }

    #[test]
    fn text_reads_as_it_is_made() {
        let recipe = Recipe::concat([Recipe::tensor("a"), Recipe::tensor("b").transposed().rows(2, 3)]);
        assert_eq!(recipe.to_string(), "concat(a, transpose(b)[2..5])");
        assert_eq!(Recipe::tensor("a").plus(1.0).to_string(), "1 + a");
    }
}
