//! What a network is made of and what it costs.

use super::Network;

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRow {
    /// Path, as in the state dict.
    pub name: String,
    /// PyTorch's name of its kind.
    pub kind: &'static str,
    /// Channels, height and width of its output; neurons of a readout.
    pub output: [i64; 3],
    /// Trainable numbers.
    pub params: u64,
    /// Multiplications for one image, of convolutions, linear layers and readouts.
    pub macs: u64,
}

/// The layers that images of one task pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Multiplications for one image.
    pub macs: u64,
    /// Bytes kept of one image until its backward pass: outputs of all layers, and positions of maxima. An
    /// estimate.
    pub bytes: u64,
}

impl Network {
    /// All layers, for images of the extent the network was built for.
    pub fn table(&self) -> Vec<LayerRow> {
        let mut rows = Vec::new();
        let mut extent = self.image;
        let mut maps = Vec::new();
        for area in &self.areas {
            area.block.rows(&mut extent, &mut rows);
            maps.push(extent);
        }
        if let Some(unshared) = &self.unshared {
            unshared.rows(&mut extent, &mut rows);
        }
        for (area, readout) in &self.readouts {
            rows.push(readout.row(maps[*area]));
        }
        if let Some(head) = &self.head {
            head.rows(extent, &mut rows);
        }
        rows
    }

    /// Cost of labelled images.
    pub fn classification_cost(&self) -> Cost {
        let rows = self.table();
        self.cost(rows.iter().filter(|row| row.kind != "Readout"))
    }

    /// Cost of stimuli of a session.
    pub fn neural_cost(&self, session: usize) -> Cost {
        let area = self.readouts[session].0;
        let rows = self.table();
        let blocks: Vec<&str> = self.areas[..=area].iter().map(|a| a.block.prefix()).collect();
        let own = &rows.iter().filter(|row| row.kind == "Readout").nth(session);
        let shared = rows.iter().filter(|row| blocks.iter().any(|b| row.name.starts_with(&format!("{b}."))));
        self.cost(shared.chain(*own))
    }

    fn cost<'a>(&self, rows: impl Iterator<Item = &'a LayerRow>) -> Cost {
        let mut cost = Cost::default();
        for row in rows {
            let values: i64 = row.output.iter().product();
            let position = if row.kind == "MaxPool2d" { 8 } else { 0 };
            cost.macs += row.macs;
            cost.bytes += values as u64 * (self.numerics.bytes() + position);
        }
        cost
    }
}
