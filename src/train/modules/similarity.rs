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

/// Squared differences of the Fisher-transformed cosines between all pairs of images, each pair once, of representations
/// `[batch, ...]` that are centred over the images; their sum over the square of the batch size, a mean over the matrix
/// whose other half and diagonal are zero (spec/reconstruction 4.5, RDM prediction). 0 where there is no pair.
pub(super) fn rdm_distance(found: &Tensor, target: &Tensor) -> Tensor {
    let n = found.size()[0];
    if n < 2 {
        return found.sum(found.kind()) * 0.0;
    }
    (pairs(found) - pairs(target)).square().sum(found.kind()) / (n * n)
}

/// atanh of the cosines of all pairs, each pair once. Without its mean over images, which rectified maps share, what is
/// compared is where images differ, not how much they have in common.
fn pairs(representation: &Tensor) -> Tensor {
    let flat = representation.flatten(1, -1);
    let flat = &flat - flat.mean_dim([0i64].as_slice(), true, flat.kind());
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
    fn rdms_compare_every_pair_once_and_not_what_images_have_in_common() {
        // Centred: (-1, 0), (0, -1), (1, 1), and (-1, 0), (1, 0), (0, 0).
        let found = map(&[0.0, 1.0, 1.0, 0.0, 2.0, 2.0], &[3, 2]);
        let target = map(&[0.0, 5.0, 2.0, 5.0, 1.0, 5.0], &[3, 2]);
        let (half, one) = ((0.5f64).sqrt().atanh(), (1.0f64 - 1e-6).atanh());
        // Pairs (1,2), (1,3), (2,3): cosines 0, -h, -h against -1 (clamped), 0, 0; nine entries.
        let expected = (one.powi(2) + 2.0 * half.powi(2)) / 9.0;
        let loss = rdm_distance(&found, &target).double_value(&[]);
        assert!((loss - expected).abs() < 0.02 * expected, "{loss}, expected {expected}");
        assert_eq!(rdm_distance(&found, &found).double_value(&[]), 0.0);
        let moved = rdm_distance(&(&found + 10.0), &target).double_value(&[]);
        assert!((moved - loss).abs() < 1e-5, "{moved}, {loss}");
        let one = map(&[1.0, 2.0], &[1, 2]);
        assert_eq!(rdm_distance(&one, &one).double_value(&[]), 0.0);
    }
}
