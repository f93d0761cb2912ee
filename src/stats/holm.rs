//! Holm's step-down correction (S. Holm, Scandinavian Journal of Statistics 6, 1979, 65-70).
//!
//! Who asks four questions at a level of 5 % gets one wrong "yes" in five comparisons of equal things. The smallest p of `m` is multiplied by
//! `m`, the next by `m - 1`, and so on, never below the one before: then the chance of *any* wrong "yes" among the `m` is at most the level.

/// The adjusted values, in the order of the given ones; each at most 1.
pub fn adjust(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![1.0; p.len()];
    let mut least = 0.0f64;
    for (rank, index) in order.into_iter().enumerate() {
        least = least.max(p[index] * super::as_f64(p.len() - rank)).min(1.0);
        adjusted[index] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &[f64], b: &[f64]) {
        assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
    }

    /// The worked example of the encyclopaedias: four hypotheses with 0.01, 0.04, 0.03, 0.005; `p.adjust(p, "holm")` in R gives the same.
    #[test]
    fn the_published_example_comes_out() {
        close(&adjust(&[0.01, 0.04, 0.03, 0.005]), &[0.03, 0.06, 0.06, 0.02]);
    }

    #[test]
    fn the_edges_hold() {
        close(&adjust(&[]), &[]);
        close(&adjust(&[0.2]), &[0.2]);
        close(&adjust(&[0.9, 0.9]), &[1.0, 1.0]);
        close(&adjust(&[0.03, 0.03, 0.03]), &[0.09, 0.09, 0.09]);
    }
}
