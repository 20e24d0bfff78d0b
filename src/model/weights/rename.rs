//! Names of the same layers in the two kinds of networks: `features.i` and `classifier.i` without neural data,
//! blocks and `classification_readout.i` with it (spec/models 5).

use super::super::Network;
use tch::Tensor;

/// `tensors` with names that `net` has, if they are of the other kind; with the wrappers of data-parallel training and
/// of intermediate outputs taken off.
pub fn renamed(tensors: &[(String, Tensor)], net: &Network) -> Vec<(String, Tensor)> {
    let blocks = net.blocks();
    let has_weight = |layer: usize| net.params().iter().any(|p| p.name == format!("features.{layer}.weight"));
    let plain = blocks.iter().any(|(prefix, _)| prefix == "features");
    let of = |name: &str| -> String {
        let name = unwrapped(name);
        if plain { to_plain(name, tensors, &has_weight) } else { to_blocks(name, &blocks) }
    };
    let kept = tensors.iter().filter(|(name, _)| name.rsplit('.').next() != Some("intermediate_out"));
    kept.map(|(name, tensor)| (of(name), tensor.shallow_clone())).collect()
}

/// A name without what wrappers in Python put before it.
fn unwrapped(mut name: &str) -> &str {
    while let Some(rest) = name.strip_prefix("module.").or_else(|| name.strip_prefix("_model.")) {
        name = rest;
    }
    name
}

/// `features.20.weight` to `mtl_vgg_core.unshared_block.3.weight`, for blocks that start at the given layers.
fn to_blocks(name: &str, blocks: &[(String, usize)]) -> String {
    if let Some(rest) = name.strip_prefix("classifier.") {
        return format!("classification_readout.{rest}");
    }
    let Some((layer, leaf)) = split(name, "features.") else { return name.to_owned() };
    match blocks.iter().rev().find(|(_, first)| *first <= layer) {
        Some((prefix, first)) => format!("{prefix}.{}.{leaf}", layer - first),
        None => name.to_owned(),
    }
}

/// The reverse. Where each block of the file starts follows from the numbers of the one before it, and from which
/// layers of the network have weights.
fn to_plain(name: &str, tensors: &[(String, Tensor)], has_weight: &dyn Fn(usize) -> bool) -> String {
    if let Some(rest) = name.strip_prefix("classification_readout.") {
        return format!("classifier.{rest}");
    }
    let mut next = 0;
    for block in ["mtl_vgg_core.v1_block.", "mtl_vgg_core.v4_block.", "mtl_vgg_core.unshared_block."] {
        let layers: Vec<usize> =
            tensors.iter().filter_map(|(name, _)| split(name, block)).map(|(layer, _)| layer).collect();
        let (Some(lowest), Some(highest)) = (layers.iter().min(), layers.iter().max()) else { continue };
        // The block before may end with a pooling, which has no weights and leaves no trace.
        let first = if has_weight(next + lowest) { next } else { next + 1 };
        if let Some((layer, leaf)) = split(name, block) {
            return format!("features.{}.{leaf}", first + layer);
        }
        // After the last layer with weights comes its rectification.
        next = first + highest + 2;
    }
    name.to_owned()
}

/// Layer and leaf of `<prefix><layer>.<leaf>`.
fn split<'a>(name: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let (layer, leaf) = name.strip_prefix(prefix)?.split_once('.')?;
    Some((layer.parse().ok()?, leaf))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_keep_their_places() {
        let blocks = [
            ("mtl_vgg_core.v1_block", 0),
            ("mtl_vgg_core.v4_block", 17),
            ("mtl_vgg_core.unshared_block", 30),
        ]
        .map(|(name, first)| (name.to_owned(), first));
        for (plain, name) in [
            ("features.14.weight", "mtl_vgg_core.v1_block.14.weight"),
            ("features.17.bias", "mtl_vgg_core.v4_block.0.bias"),
            ("features.31.running_var", "mtl_vgg_core.unshared_block.1.running_var"),
            ("classifier.6.bias", "classification_readout.6.bias"),
        ] {
            assert_eq!(to_blocks(plain, &blocks), name);
        }
        assert_eq!(to_blocks("v1_readout.1.mu", &blocks), "v1_readout.1.mu");
        // V4 ends with the fourth pooling, as in a VGG-13 with batch norm whose next convolution is layer 28.
        let names = ["v1_block.0.b", "v1_block.15.b", "v4_block.0.b", "v4_block.8.b", "unshared_block.0.b"];
        let file = names.map(|name| (format!("mtl_vgg_core.{name}"), Tensor::from(0)));
        let has_weight = |layer: usize| [0, 14, 15, 17, 28].contains(&layer);
        for (name, plain) in [
            ("mtl_vgg_core.v1_block.14.weight", "features.14.weight"),
            ("mtl_vgg_core.v4_block.0.bias", "features.17.bias"),
            ("mtl_vgg_core.unshared_block.1.running_var", "features.29.running_var"),
            ("classification_readout.6.bias", "classifier.6.bias"),
        ] {
            assert_eq!(to_plain(name, &file, &has_weight), plain);
        }
    }
}
