//! Dictionaries to a recipe.

mod data;
mod model;
mod trainer;

use super::defaults::Class;
use crate::config::recipe::placed;
use crate::config::{ConfigError, Recipe};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use toml::Table;

/// A recipe that dictionaries mean.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The recipe's text.
    pub recipe: String,
    /// What the dictionaries say beyond it: what has no counterpart or no effect, and what `nct prepare` needs.
    pub notes: Vec<String>,
}

/// A dictionary with the defaults of its class, and which of its keys were looked at.
struct Part {
    name: &'static str,
    class: Class,
    given: Map<String, Value>,
    defaults: Map<String, Value>,
    seen: BTreeSet<&'static str>,
}

/// Keys that the reference writes beside those of the class: its function, and what it made of its own dictionaries.
const WRITTEN: [&str; 4] = ["fn", "img_dataset_config", "v1_dataset_config", "v4_dataset_config"];

/// Reads what the reference's `Experiment` writes: `dataset`, `model` and `trainer`, each as `{"Class": {...}}` or as a
/// dictionary with `fn`, and `seed`; or what [`super::dictionaries`] gives, also with the hash beside each. What is left
/// out has the reference's defaults.
pub fn import(text: &str, name: &str, origin: &str) -> Result<Imported, ConfigError> {
    let wrong = |what: String| ConfigError::new(origin, what);
    let all: Value = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    let mut recipe = Writer { table: Table::new(), notes: Vec::new(), refused: None };
    recipe.set("name", &json!(name));
    let seed = all.get("seed").filter(|seed| !seed.is_null());
    if seed.is_none() {
        recipe.notes.push("seed: not given; 1000, as the reference's builders have it".to_owned());
    }
    recipe.set("seed", seed.unwrap_or(&json!(1000)));
    let mut made = || -> Result<(), String> {
        let (mut data, mut model, mut trainer) =
            (Part::of(&all, "dataset")?, Part::of(&all, "model")?, Part::of(&all, "trainer")?);
        recipe.data(&mut data)?;
        recipe.model(&mut model, data.class)?;
        recipe.trainer(&mut trainer, data.class)?;
        recipe.beyond(&mut trainer);
        for part in [data, model, trainer] {
            recipe.leave(&part);
        }
        Ok(())
    };
    made().map_err(wrong)?;
    if let Some(what) = recipe.refused {
        return Err(wrong(what));
    }
    let text = toml::to_string(&recipe.table).map_err(|e| wrong(e.to_string()))?;
    // It must mean something.
    Recipe::parse(&text, origin)?.single(&[])?;
    Ok(Imported { recipe: text, notes: recipe.notes })
}

impl Part {
    fn of(all: &Value, name: &'static str) -> Result<Self, String> {
        let Some(part) = all.get(name).and_then(Value::as_object) else {
            return Err(format!(
                "{name}: expected a dictionary; an experiment has dataset, model and trainer"
            ));
        };
        // As `nct config reference` prints it.
        let part = part
            .get("config")
            .filter(|_| part.contains_key("hash"))
            .and_then(Value::as_object)
            .unwrap_or(part);
        if let (1, Some((class, Value::Object(given)))) = (part.len(), part.iter().next())
            && let Some(class) = Class::by_name(class)
        {
            return Ok(Self::new(name, class, given.clone()));
        }
        let function = part.get("fn").and_then(Value::as_str).unwrap_or_default();
        let class = Class::by_function(function)
            .or((name == "trainer" && function.is_empty()).then_some(Class::Trainer));
        let Some(class) = class else {
            return Err(format!(
                "{name}: neither the name of a class nor fn says what it is; fn is {function:?}"
            ));
        };
        Ok(Self::new(name, class, part.clone()))
    }

    fn new(name: &'static str, class: Class, given: Map<String, Value>) -> Self {
        Self { name, class, given, defaults: class.defaults(), seen: BTreeSet::new() }
    }

    /// The value of `key`: as given, or the default where it is not or is null.
    fn get(&mut self, key: &'static str) -> Value {
        self.seen.insert(key);
        let given = self.given.get(key).filter(|value| !value.is_null());
        given.or_else(|| self.defaults.get(key)).cloned().unwrap_or_default()
    }

    /// A dictionary within: as the reference resolved it where it is written with that, for that is what it reads.
    fn inner(&mut self, key: &'static str, resolved: &'static str, class: Class) -> Self {
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        let (given, made) = (object(self.get(key)), object(self.get(resolved)));
        if made.is_empty() { Self::new(key, class, given) } else { Self::new(resolved, class, made) }
    }

    /// Refuses a value that is not what `key` is here.
    fn only(&mut self, key: &'static str, value: &Value, way_out: &str) -> Result<(), String> {
        let found = self.get(key);
        if found == *value {
            return Ok(());
        }
        Err(format!("{}.{key} = {found}: {way_out}", self.name))
    }

    fn is(&mut self, key: &'static str) -> bool {
        self.get(key) == true
    }
}

/// Takes a key out, and sections that are empty then.
fn removed(table: &mut Table, path: &str) {
    let Some((section, rest)) = path.split_once('.') else {
        table.remove(path);
        return;
    };
    let Some(toml::Value::Table(inner)) = table.get_mut(section) else { return };
    removed(inner, rest);
    if inner.is_empty() {
        table.remove(section);
    }
}

struct Writer {
    table: Table,
    notes: Vec<String>,
    /// The first value that no recipe can hold.
    refused: Option<String>,
}

impl Writer {
    fn set(&mut self, key: &str, value: &Value) {
        match toml::Value::try_from(value) {
            // Keys are ours: no section is a value.
            Ok(value) => drop(placed(&mut self.table, key, value)),
            // What is not given stays as it is.
            Err(_) if value.is_null() => {}
            Err(_) => {
                let what = format!(
                    "{key} = {value}: recipes hold no empty values, and whole numbers up to 2^63 - 1"
                );
                self.refused.get_or_insert(what);
            }
        }
    }

    /// What the trainer has in `nct`: our settings that the reference has no words for; null are those that its words say
    /// and the experiment does not have.
    fn beyond(&mut self, trainer: &mut Part) {
        trainer.seen.insert("nct");
        let Some(Value::Object(settings)) = trainer.given.get("nct") else { return };
        for (key, value) in settings {
            if value.is_null() {
                removed(&mut self.table, key);
            } else {
                self.set(key, value);
            }
        }
    }

    /// Tells which given keys had no part in it; what has its default anyway, or is null, says nothing.
    fn leave(&mut self, part: &Part) {
        let says = |(key, value): &(&String, &Value)| {
            !value.is_null() && part.defaults.get(*key) != Some(*value) && !WRITTEN.contains(&key.as_str())
        };
        let given = part.given.iter().filter(says).map(|(key, _)| key);
        let left = given.filter(|key| !part.seen.contains(key.as_str()));
        let (neutral, unknown): (Vec<&String>, Vec<&String>) =
            left.partition(|key| part.defaults.contains_key(*key));
        let list = |keys: &[&String]| keys.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(", ");
        if !neutral.is_empty() {
            self.notes.push(format!("{}: without effect here: {}", part.name, list(&neutral)));
        }
        if !unknown.is_empty() {
            self.notes.push(format!(
                "{}: the reference does not know these either: {}",
                part.name,
                list(&unknown)
            ));
        }
    }
}
