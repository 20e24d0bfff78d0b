//! The reference's configuration dictionaries: recipes made of them, and they of experiments (spec/trainer 5 and 6,
//! spec/data 4, spec/models 4).

mod defaults;
mod export;
mod import;
mod prepared;

pub use export::{Dictionaries, dictionaries};
pub use import::{Imported, import};
pub use prepared::Prepared;
