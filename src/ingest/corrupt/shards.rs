//! One corruption and severity as a data set of its own.

use super::{IngestError, Job, Memory, Result};
use crate::base::DType;
use crate::corruption::{Corruption, frost};
use crate::shard::{
    BlockOptions, Content, Field, MANIFEST, MANIFEST_VERSION, Manifest, Schema, Sealed, ShardInfo, ShardMeta,
    ShardWriter, block_rows, pack,
};
use rayon::prelude::*;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

impl Job<'_> {
    /// Writes a shard and its manifest; gives the bytes of the shard.
    pub(super) fn shards(&self) -> Result<u64> {
        let name = format!("{}-{}", self.corruption, self.severity);
        let root = self.root.join(&name);
        fs::create_dir(&root).map_err(IngestError::io(&root, "create"))?;
        let info = self.shard(&name, &root)?;
        let bytes = info.bytes;
        let manifest = self.manifest(name, info);
        let text = serde_json::to_string_pretty(&manifest).expect("a manifest has only plain values");
        let path = root.join(MANIFEST);
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(IngestError::io(&path, "write"))?;
        Ok(bytes)
    }

    fn shard(&self, name: &str, root: &Path) -> Result<ShardInfo> {
        let options = BlockOptions::default();
        let image = Field::new("image", DType::U8, &self.images.manifest.image);
        let word = |name: &str| Field::new(name, DType::U32, &[]);
        let fields = vec![image.clone(), word("id"), word("label")];
        let rows = |field: &Field| block_rows(field.row_bytes().unwrap_or(1), options);
        let split = Some(self.options.split);
        let meta = ShardMeta {
            dataset: name.to_owned(),
            content: Content::Images,
            split,
            block_rows: fields.iter().map(rows).collect(),
            schema: Schema(fields),
        };
        let file = format!("{}-00000.nct", self.options.split);
        let path = root.join(&file);
        let out = File::create(&path).map_err(IngestError::io(&path, "create"))?;
        let mut writer = ShardWriter::new(out, &path, meta)?;
        let numbers: Vec<usize> = (0..self.images.ids.len()).collect();
        let block = |memory: &mut Memory, numbers: &[usize]| {
            let mut raw = Vec::with_capacity(numbers.len() * self.images.stored.len());
            numbers.iter().try_for_each(|&row| self.append(row, memory, &mut raw))?;
            self.tell(numbers.len())?;
            Ok(pack(&raw, image.raster(), options.level)?)
        };
        let blocks = numbers.par_chunks(rows(&image) as usize).map_init(Memory::default, block);
        for block in blocks.collect::<Result<Vec<_>>>()? {
            writer.append(0, block)?;
        }
        for (field, words) in [(1, &self.images.ids), (2, &self.images.labels)] {
            let raw: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            writer.append_column(field, &raw, options.level)?;
        }
        let (out, Sealed { bytes, checksum, blake3 }) = writer.finish()?;
        out.sync_all().map_err(IngestError::io(&path, "write"))?;
        Ok(ShardInfo { file, split, session: None, rows: numbers.len() as u64, bytes, checksum, blake3 })
    }

    /// As that of the set the images came from, whose statistics a network was trained with.
    fn manifest(&self, dataset: String, shard: ShardInfo) -> Manifest {
        let source = self.images.manifest;
        let settings = [
            ("corruption", self.corruption.to_string()),
            ("severity", self.severity.to_string()),
            ("profile", self.options.profile.to_string()),
            ("seed", self.options.seed.to_string()),
            ("of", source.dataset.clone()),
            ("source", source.fingerprint().to_string()),
        ];
        let settings = settings.into_iter().chain(
            (self.corruption == Corruption::Frost)
                .then(|| ("frost_source", frost::source().as_str().to_owned())),
        );
        let settings =
            settings.chain(self.options.departures(self.corruption).map(|(k, v)| (k, v.to_string())));
        Manifest {
            version: MANIFEST_VERSION,
            dataset,
            writer: format!("nct {}", env!("CARGO_PKG_VERSION")),
            settings: settings.map(|(key, value)| format!("{key} = {value}")).collect(),
            raw_bytes: self.images.pixels.len() as u64,
            shards: vec![shard],
            sessions: Vec::new(),
            ..source.clone()
        }
    }
}
