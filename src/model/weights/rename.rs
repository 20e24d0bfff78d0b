//! Names of the same layers in the two kinds of networks: `features.i` and `classifier.i` without neural data,
//! blocks and `classification_readout.i` with it (spec/models 5).

use super::super::Network;
use super::prefix::fitted;
use std::collections::BTreeSet;
use tch::Tensor;

/// `tensors` with names that `net` has, if they are of the other kind; without the prefixes of wrappers, with the
/// prefix that 98 % of the names share exchanged for the network's if more names fit then, and without the outputs that
/// the reference's hooks leave in state dicts.
pub fn renamed(tensors: &[(String, Tensor)], net: &Network) -> Vec<(String, Tensor)> {
    let is_output = |name: &str| name.rsplit('.').next() == Some("intermediate_out");
    let kept: Vec<&(String, Tensor)> = tensors.iter().filter(|(name, _)| !is_output(name)).collect();
    let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
    let known: BTreeSet<&str> = net.params().iter().map(|p| p.name.as_str()).collect();
    let layout = Layout::of(&net.blocks(), &known);
    let new = fitted(&names, &known, &|names| layout.names(names));
    new.into_iter().zip(kept).map(|(name, (_, tensor))| (name, tensor.shallow_clone())).collect()
}

/// What the layers of a network are called.
enum Layout {
    /// `features.i`; the numbers of the layers with weights.
    Plain(BTreeSet<usize>),
    /// Blocks, and how many layers are before each.
    Blocks(Vec<(String, usize)>),
}

impl Layout {
    fn of(blocks: &[(String, usize)], known: &BTreeSet<&str>) -> Self {
        if blocks.iter().any(|(prefix, _)| prefix == "features") {
            let layers = known.iter().filter_map(|name| split(name, "features."));
            Self::Plain(layers.filter(|(_, leaf)| *leaf == "weight").map(|(layer, _)| layer).collect())
        } else {
            Self::Blocks(blocks.to_vec())
        }
    }

    fn names(&self, names: &[String]) -> Vec<String> {
        match self {
            Self::Plain(with_weights) => {
                let starts = starts(names, with_weights);
                names.iter().map(|name| to_plain(name, &starts)).collect()
            }
            Self::Blocks(blocks) => names.iter().map(|name| to_blocks(name, blocks)).collect(),
        }
    }
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

/// The reverse, for blocks that start at the given layers.
fn to_plain(name: &str, starts: &[(&str, usize)]) -> String {
    if let Some(rest) = name.strip_prefix("classification_readout.") {
        return format!("classifier.{rest}");
    }
    let place = starts.iter().find_map(|(block, first)| Some((first, split(name, block)?)));
    match place {
        Some((first, (layer, leaf))) => format!("features.{}.{leaf}", first + layer),
        None => name.to_owned(),
    }
}

const BLOCKS: [&str; 3] =
    ["mtl_vgg_core.v1_block.", "mtl_vgg_core.v4_block.", "mtl_vgg_core.unshared_block."];

/// At which layer each block of the file starts: it follows from the numbers of the block before, and from which layers
/// of the network have weights.
fn starts(names: &[String], with_weights: &BTreeSet<usize>) -> Vec<(&'static str, usize)> {
    let (mut next, mut found) = (0, Vec::new());
    for block in BLOCKS {
        let layers: BTreeSet<usize> =
            names.iter().filter_map(|name| split(name, block)).map(|(layer, _)| layer).collect();
        let (Some(lowest), Some(highest)) = (layers.first(), layers.last()) else { continue };
        // The block before may end with a pooling, which has no weights and leaves no trace.
        let first = if with_weights.contains(&(next + lowest)) { next } else { next + 1 };
        found.push((block, first));
        // After the last layer with weights comes its rectification.
        next = first + highest + 2;
    }
    found
}

/// More layers than any network has; a file may claim others, and sums of these must not overflow.
const LAYERS_MAX: usize = 1 << 20;

/// Layer and leaf of `<prefix><layer>.<leaf>`.
fn split<'a>(name: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let (layer, leaf) = name.strip_prefix(prefix)?.split_once('.')?;
    Some((layer.parse().ok().filter(|&layer| layer < LAYERS_MAX)?, leaf))
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
        let file = names.map(|name| format!("mtl_vgg_core.{name}"));
        let starts = starts(&file, &[0, 14, 15, 17, 28].into());
        for (name, plain) in [
            ("mtl_vgg_core.v1_block.14.weight", "features.14.weight"),
            ("mtl_vgg_core.v4_block.0.bias", "features.17.bias"),
            ("mtl_vgg_core.unshared_block.1.running_var", "features.29.running_var"),
            ("classification_readout.6.bias", "classifier.6.bias"),
        ] {
            assert_eq!(to_plain(name, &starts), plain);
        }
    }

    #[test]
    fn layer_numbers_that_no_network_has_are_left_alone() {
        let names = ["mtl_vgg_core.v1_block.18446744073709551614.b", "mtl_vgg_core.unshared_block.0.b"];
        let names = names.map(ToOwned::to_owned);
        let new = Layout::Plain([0].into()).names(&names);
        assert_eq!(new, [names[0].as_str(), "features.0.b"]);
        let blocks = Layout::Blocks(vec![("mtl_vgg_core.v1_block".to_owned(), 0)]);
        let far = ["features.18446744073709551614.b".to_owned()];
        assert_eq!(blocks.names(&far), far);
    }
}
