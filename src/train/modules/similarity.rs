//! How alike representations of the same images are, as losses.

use tch::{Kind, Tensor};

/// Mean over images and positions of 1 minus the cosine over channels, of maps `[batch, channels, ...]`
/// (spec/trainer 3.8, RepresentationMatching).
pub(super) fn cosine_distance(a: &Tensor, b: &Tensor) -> Tensor {
    1.0 - Tensor::cosine_similarity(a, b, 1, 1e-8).mean(a.kind())
}

/// Mean squared difference.
pub(super) fn squared_difference(a: &Tensor, b: &Tensor) -> Tensor {
    (a - b).square().mean(a.kind())
}

/// Mean squared difference of the Fisher-transformed cosines between all pairs of images, of representations
/// `[batch, ...]` (spec/trainer 3.8, RDMPrediction). 0 where there is no pair.
pub(super) fn rdm_distance(found: &Tensor, target: &Tensor) -> Tensor {
    if found.size()[0] < 2 {
        return found.sum(found.kind()) * 0.0;
    }
    squared_difference(&pairs(found), &pairs(target))
}

/// atanh of the cosines of all pairs, each pair once.
fn pairs(representation: &Tensor) -> Tensor {
    let flat = representation.flatten(1, -1);
    let norms = flat.norm_scalaropt_dim(2.0, [1i64].as_slice(), true).clamp_min(1e-8);
    let unit = flat / norms;
    let cosines = unit.matmul(&unit.tr());
    let n = cosines.size()[0];
    let upper = Tensor::triu_indices(n, n, 1, (Kind::Int64, cosines.device()));
    let cosines = cosines.flatten(0, -1).index_select(0, &(upper.get(0) * n + upper.get(1)));
    // Equal images have cosine 1, where atanh is infinite.
    cosines.clamp(-1.0 + 1e-6, 1.0 - 1e-6).atanh()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(values: &[f32], shape: &[i64]) -> Tensor {
        Tensor::from_slice(values).view(shape)
    }

    #[test]
    fn cosines_are_over_channels_at_each_position() {
        // Two channels at two positions: the first is turned by a right angle, the second only scaled.
        let a = map(&[1.0, 2.0, 0.0, 1.0], &[1, 2, 1, 2]);
        let b = map(&[0.0, 4.0, 3.0, 2.0], &[1, 2, 1, 2]);
        assert!((cosine_distance(&a, &b).double_value(&[]) - 0.5).abs() < 1e-6);
        assert_eq!(squared_difference(&a, &b).double_value(&[]), 15.0 / 4.0);
    }

    #[test]
    fn rdms_compare_every_pair_once() {
        let found = map(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], &[3, 2]);
        let target = map(&[1.0, 0.0, 1.0, 0.0, 1.0, 1.0], &[3, 2]);
        let half = (0.5f64).sqrt().atanh();
        // Pairs (1,2), (1,3), (2,3): cosines 0, h, h against 1 (clamped), h, h.
        let expected = (0.0 - (1.0f64 - 1e-6).atanh()).powi(2) / 3.0;
        let loss = rdm_distance(&found, &target).double_value(&[]);
        assert!((loss - expected).abs() < 0.05 * expected, "{loss}, expected {expected}; {half}");
        assert_eq!(rdm_distance(&found, &found).double_value(&[]), 0.0);
        assert_eq!(
            rdm_distance(&map(&[1.0, 2.0], &[1, 2]), &map(&[1.0, 2.0], &[1, 2])).double_value(&[]),
            0.0
        );
    }
}
