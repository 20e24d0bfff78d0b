//! Figures as files.

use super::exit::Usage;
use super::show::Show;
use crate::eval::figures::{FiguresError, Seeds, curves, heat_map};
use crate::figure::Figure;
use crate::runs::write_atomic;
use crate::table::{Format, Table};
use std::path::Path;

/// Writes the figures of models under corruptions, and their numbers beside them.
pub(crate) fn write_figures(folder: &Path, models: &[Seeds], show: Show) -> anyhow::Result<()> {
    let unlike = |e: FiguresError| match e {
        FiguresError::Grids(what) => Usage(what).into(),
        FiguresError::Table(e) => anyhow::Error::from(e),
    };
    for (name, made) in [("heatmap", heat_map(models)), ("curves", curves(models))] {
        let (figure, table) = made.map_err(unlike)?;
        write_figure(folder, name, &figure, &table)?;
    }
    show.line(&format!("figures written to {}", folder.display()));
    Ok(())
}

/// Writes a figure, and its numbers beside it.
pub(crate) fn write_figure(folder: &Path, name: &str, figure: &Figure, table: &Table) -> anyhow::Result<()> {
    let path = |extension: &str| folder.join(format!("{name}.{extension}"));
    write_atomic(&path("svg"), figure.svg().as_bytes())?;
    write_atomic(&path("png"), &figure.png()?)?;
    Ok(write_atomic(&path("csv"), &table.bytes(Format::Csv)?)?)
}
