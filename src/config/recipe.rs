//! Recipes: settings that may inherit from another file, and sweeps over some of them.

use super::{ConfigError, Experiment};
use crate::runs::flat_settings;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A file as it is written, with what it inherits.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What is told in messages: the file's path.
    origin: String,
    /// The settings, inherited ones included.
    table: Table,
    /// Keys that take several values, in the order of the file.
    sweep: Vec<(String, Vec<Value>)>,
    /// The files, the recipe itself first, for messages.
    files: Vec<(String, String)>,
    /// Keys that a study says, and where, for messages.
    said: Vec<(String, String)>,
}

/// One run of a recipe.
#[derive(Debug, Clone)]
pub struct Point {
    /// What the sweep chose: keys and values.
    pub choice: Vec<(String, Value)>,
    /// The settings.
    pub experiment: Experiment,
}

/// A recipe inherits through at most so many files.
const DEEPEST: usize = 16;
/// A sweep of more runs is a mistake.
const MOST_RUNS: usize = 100_000;

impl Recipe {
    /// Reads a file and what it inherits.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        Self::new(&text, &path.display().to_string(), path.parent())
    }

    /// As [`Self::read`] from text; `origin` is used in messages. It cannot inherit.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        Self::new(text, origin, None)
    }

    fn new(text: &str, origin: &str, folder: Option<&Path>) -> Result<Self, ConfigError> {
        let mut files = vec![(origin.to_owned(), text.to_owned())];
        let mut table = table(text, origin)?;
        if table.contains_key("stage") {
            let what = "is a study of several recipes: `nct run` trains it, and `nct run --dry-run` lists what it has";
            return Err(ConfigError::new(origin, what));
        }
        let sweep = match table.remove("sweep") {
            None => Vec::new(),
            Some(sweep) => swept(&sweep).map_err(|what| ConfigError::new(origin, what))?,
        };
        let mut without = Without::default();
        without.take(&mut table, origin)?;
        let mut folder = folder.map(Path::to_path_buf);
        while let Some(base) = table.remove("base") {
            let at = files.last().map_or(origin, |(origin, _)| origin).to_owned();
            let (Value::String(base), Some(within)) = (&base, &folder) else {
                let what = "base: expected the path of another recipe, relative to this file";
                return Err(ConfigError::new(at, what));
            };
            let path = within.join(base);
            let named = path.display().to_string();
            if files.len() > DEEPEST || files.iter().any(|(file, _)| *file == named) {
                return Err(ConfigError::new(at, format!("base: {base} inherits from itself")));
            }
            let text = read(&path).map_err(|e| ConfigError::new(at, format!("base: {e}")))?;
            let mut below = self::table(&text, &named)?;
            if below.contains_key("sweep") {
                let what = "has a sweep, and is inherited from; a sweep belongs to the recipe that is run";
                return Err(ConfigError::new(named, what));
            }
            without.apply(&mut below);
            without.take(&mut below, &named)?;
            inherit(&mut table, &below);
            // Its base comes next.
            table.extend(below.remove("base").map(|next| ("base".to_owned(), next)));
            folder = path.parent().map(PathBuf::from);
            files.push((named, text));
        }
        without.check()?;
        Ok(Self { origin: origin.to_owned(), table, sweep, files, said: Vec::new() })
    }

    /// The recipe with what a study says of it at `place`: settings that differ, which are not swept then, and values
    /// that are swept.
    pub(super) fn over(mut self, set: &Table, sweep: &Table, place: &str) -> Result<Self, String> {
        for (key, _) in flat_settings(set) {
            self.sweep.retain(|(swept, _)| !is_within(swept, &key));
            let at = format!("{place}set.{key}");
            self.said.push((key, at));
        }
        let mut table = set.clone();
        inherit(&mut table, &self.table);
        self.table = table;
        for (key, values) in swept(&Value::Table(sweep.clone()))? {
            self.said.push((key.clone(), format!("{place}sweep.{key}")));
            match self.sweep.iter_mut().find(|(own, _)| *own == key) {
                Some((_, own)) => *own = values,
                None => self.sweep.push((key, values)),
            }
        }
        Ok(self)
    }

    /// The one experiment of a recipe, after `key.path=value` overrides. A key that is given is not swept.
    pub fn single(&self, overrides: &[String]) -> Result<Experiment, ConfigError> {
        let mut points = self.points(overrides)?;
        match (points.len(), points.pop()) {
            (1, Some(point)) => Ok(point.experiment),
            (n, _) => Err(ConfigError::new(
                &self.origin,
                format!("is a sweep of {n} runs; choose one with --set, such as --set {}", self.example()),
            )),
        }
    }

    fn example(&self) -> String {
        let first = self.sweep.first().and_then(|(key, values)| Some(format!("{key}={}", values.first()?)));
        first.unwrap_or_default()
    }

    /// All runs, the last key of the sweep changing fastest.
    pub fn points(&self, overrides: &[String]) -> Result<Vec<Point>, ConfigError> {
        let mut table = self.table.clone();
        let mut given = Vec::new();
        for entry in overrides {
            let origin = || format!("--set {entry}");
            let Some((path, value)) = entry.split_once('=') else {
                return Err(ConfigError::new(origin(), "expected key.path=value"));
            };
            placed(&mut table, path, typed(value)).map_err(|what| ConfigError::new(origin(), what))?;
            given.push(path.trim());
        }
        let swept = self.sweep.iter().filter(|(key, _)| !given.iter().any(|given| is_within(key, given)));
        let mut choices: Vec<Vec<(String, Value)>> = vec![Vec::new()];
        for (key, values) in swept {
            let with = |choice: &Vec<(String, Value)>, value: &Value| {
                choice.iter().cloned().chain([(key.clone(), value.clone())]).collect()
            };
            choices = choices.iter().flat_map(|choice| values.iter().map(|v| with(choice, v))).collect();
            if choices.len() > MOST_RUNS {
                let what = format!("is a sweep of more than {MOST_RUNS} runs");
                return Err(ConfigError::new(&self.origin, what));
            }
        }
        choices.into_iter().map(|choice| self.point(&table, choice, overrides)).collect()
    }

    fn point(
        &self,
        table: &Table,
        choice: Vec<(String, Value)>,
        overrides: &[String],
    ) -> Result<Point, ConfigError> {
        let mut table = table.clone();
        for (key, value) in &choice {
            let done = placed(&mut table, key, value.clone());
            done.map_err(|what| ConfigError::new(&self.origin, format!("sweep.{key}: {what}")))?;
        }
        let experiment: Experiment = serde_path_to_error::deserialize(Value::Table(table))
            .map_err(|e| self.wrong(&e.path().to_string(), &e.inner().to_string(), overrides, &choice))?;
        experiment.check().map_err(|what| ConfigError::new(&self.origin, what))?;
        Ok(Point { choice, experiment })
    }

    /// An error that names the place where the key was said last: the override, what the study or the sweep says, or
    /// the line of the file it is from.
    fn wrong(&self, path: &str, what: &str, overrides: &[String], choice: &[(String, Value)]) -> ConfigError {
        let what = with_suggestion(what);
        // Of a key that is not known the message has the name, and the path of its section.
        let unknown = what.split_once("unknown field `").and_then(|(_, rest)| rest.split_once('`'));
        let full = match unknown {
            Some((name, _)) if path == "." => name.to_owned(),
            Some((name, _)) if path.rsplit('.').next() != Some(name) => {
                format!("{path}.{name}")
            }
            _ => path.to_owned(),
        };
        let is_set =
            |entry: &&String| entry.split_once('=').is_some_and(|(key, _)| is_within(&full, key.trim()));
        if let Some(entry) = overrides.iter().rfind(is_set) {
            return ConfigError::new(format!("--set {entry}"), format!("{full}: {what}"));
        }
        if let Some((_, place)) = self.said.iter().rfind(|(key, _)| is_within(&full, key)) {
            return ConfigError::new(place, what);
        }
        let chosen = choice.iter().find(|(key, _)| is_within(&full, key));
        let full = chosen.map_or(full, |(key, _)| format!("sweep.{key}"));
        let line =
            |(file, text): &(String, String)| line_of(text, &full).map(|line| format!("{file}, line {line}"));
        let origin = self.files.iter().find_map(line).unwrap_or_else(|| self.origin.clone());
        ConfigError::new(origin, format!("{full}: {what}"))
    }
}

/// Keys that are not inherited: where that is said, the key, and whether something below says it.
#[derive(Debug, Default)]
struct Without(Vec<(String, String, bool)>);

impl Without {
    /// Takes the list out of a file.
    fn take(&mut self, table: &mut Table, origin: &str) -> Result<(), ConfigError> {
        let wrong = || {
            let what = "without: expected a list of keys, such as [\"data.augment.distort\", \"modules\"]";
            ConfigError::new(origin, what)
        };
        let Some(listed) = table.remove("without") else { return Ok(()) };
        for key in listed.as_array().ok_or_else(wrong)? {
            let key = key.as_str().ok_or_else(wrong)?;
            self.0.push((origin.to_owned(), key.to_owned(), false));
        }
        Ok(())
    }

    /// Removes the keys from what is inherited.
    fn apply(&mut self, below: &mut Table) {
        for (_, key, found) in &mut self.0 {
            *found |= removed(below, key).is_some();
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        match self.0.iter().find(|(.., found)| !found) {
            Some((origin, key, _)) => Err(ConfigError::new(
                origin,
                format!("without: {key} is said by nothing that is inherited; take it off the list"),
            )),
            None => Ok(()),
        }
    }
}

fn removed(table: &mut Table, path: &str) -> Option<Value> {
    match path.split_once('.') {
        Some((section, rest)) => removed(table.get_mut(section)?.as_table_mut()?, rest),
        None => table.remove(path),
    }
}

/// Whether a path is that of `key`, or of something within its value.
fn is_within(path: &str, key: &str) -> bool {
    path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path);
    text.map_err(|e| {
        ConfigError::new(path.display().to_string(), format!("{e}; the recipes are in configs/"))
    })
}

pub(super) fn table(text: &str, origin: &str) -> Result<Table, ConfigError> {
    toml::from_str(text).map_err(|e| ConfigError::new(origin, e.to_string().trim_end()))
}

/// Fills what `table` does not say with what `base` says. A ratio by epochs is one value.
fn inherit(table: &mut Table, base: &Table) {
    for (key, value) in base {
        match (table.get_mut(key), value) {
            (Some(Value::Table(own)), Value::Table(base)) if key != "ratio" => inherit(own, base),
            (Some(_), _) => {}
            (None, _) if key == "base" => {}
            (None, value) => drop(table.insert(key.clone(), value.clone())),
        }
    }
}

/// What an override's right side means: a TOML value, else text, so that quotes need not get past a shell.
fn typed(value: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("v = {value}")).ok();
    parsed.and_then(|mut table| table.remove("v")).unwrap_or_else(|| Value::String(value.to_owned()))
}

pub(super) fn placed(table: &mut Table, path: &str, value: Value) -> Result<(), String> {
    let (parents, key) = path.rsplit_once('.').map_or(("", path), |(parents, key)| (parents, key));
    let mut at = table;
    for parent in parents.split('.').filter(|p| !p.is_empty()) {
        let next = at.entry(parent).or_insert_with(|| Value::Table(Table::new()));
        at = next.as_table_mut().ok_or_else(|| format!("{parent} is a value, not a section"))?;
    }
    at.insert(key.trim().to_owned(), value);
    Ok(())
}

/// The keys of a sweep, by their full names, and their values.
fn swept(sweep: &Value) -> Result<Vec<(String, Vec<Value>)>, String> {
    fn walk(prefix: &str, value: &Value, found: &mut Vec<(String, Vec<Value>)>) -> Result<(), String> {
        let wrong =
            || format!("sweep.{prefix}: expected a list of values, or {{ from = 0, to = 4, step = 1 }}");
        match value {
            Value::Array(values) if !values.is_empty() => found.push((prefix.to_owned(), values.clone())),
            // A list there is of a setting that is called so, such as `init.from`.
            Value::Table(range) if range.get("from").is_some_and(|from| !from.is_array()) => {
                found.push((prefix.to_owned(), span(range).ok_or_else(wrong)?));
            }
            Value::Table(inner) => {
                let path =
                    |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
                inner.iter().try_for_each(|(key, value)| walk(&path(key), value, found))?;
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk("", sweep, &mut found)?;
    Ok(found)
}

/// The numbers of a range, both ends included; whole if all of its are.
fn span(range: &Table) -> Option<Vec<Value>> {
    let known = |key: &String| ["from", "to", "step"].contains(&key.as_str());
    if !range.keys().all(known) {
        return None;
    }
    let one = Value::Integer(1);
    let (from, to, step) = (range.get("from")?, range.get("to")?, range.get("step").unwrap_or(&one));
    if let (Value::Integer(from), Value::Integer(to), Value::Integer(step)) = (from, to, step) {
        let step = usize::try_from(*step).ok().filter(|step| *step > 0)?;
        let values: Vec<Value> =
            (*from..=*to).step_by(step).take(MOST_RUNS + 1).map(Value::Integer).collect();
        return Some(values).filter(|values| !values.is_empty());
    }
    let number = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
    let (from, to, step) = (number(from)?, number(to)?, number(step)?);
    let n = ((to - from) / step + 1e-9).floor();
    let fits = step > 0.0 && (0.0..=MOST_RUNS as f64).contains(&n);
    fits.then(|| (0..=n as usize).map(|i| Value::Float(from + i as f64 * step)).collect())
}

/// Adds the nearest known name to a message of serde's about an unknown one.
pub(super) fn with_suggestion(what: &str) -> String {
    let what = what.trim_end();
    let rest = ["unknown field `", "unknown variant `"].iter().find_map(|start| what.split_once(start));
    let Some((name, known)) = rest.and_then(|(_, rest)| rest.split_once('`')) else {
        return what.to_owned();
    };
    let known = known.split('`').skip(1).step_by(2);
    let near = known.map(|word| (strsim::damerau_levenshtein(name, word), word)).min();
    match near {
        Some((distance, word)) if distance <= 1 + name.len() / 3 => {
            format!("{what}; did you mean `{word}`?")
        }
        _ => what.to_owned(),
    }
}

/// The line, from 1, on which a key of a TOML text is set; of a section, its head.
pub(super) fn line_of(text: &str, path: &str) -> Option<usize> {
    let mut section = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            name.trim_matches('[').trim().clone_into(&mut section);
            if section == path {
                return Some(number + 1);
            }
        } else if let Some((key, _)) = line.split_once('=') {
            let key = key.trim().trim_matches('"');
            let full = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            // An inline table holds what is below its key.
            if full == path || path.strip_prefix(&full).is_some_and(|rest| rest.starts_with('.')) {
                return Some(number + 1);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn error<T>(result: Result<T, ConfigError>) -> String {
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_recipe_says_only_what_differs_from_its_base() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("base.toml", "name = \"base\"\nseed = 5\n[mix]\nkind = \"mtl\"\nratio = { 1 = 1, 9 = 2 }\n");
        fs::create_dir(dir.path().join("more")).unwrap();
        write("more/middle.toml", "base = \"../base.toml\"\n[optimizer]\nkind = \"adam\"\nlr = 0.5\n");
        write(
            "top.toml",
            "base = \"more/middle.toml\"\nname = \"top\"\n[optimizer]\nlr = 0.25\n[mix]\nratio = { 1 = 3 }\n",
        );
        let found = Recipe::read(&dir.path().join("top.toml")).unwrap().single(&[]).unwrap();
        let expected = "name = \"top\"\nseed = 5\n[mix]\nkind = \"mtl\"\nratio = { 1 = 3 }\n[optimizer]\nkind = \"adam\"\nlr = 0.25\n";
        assert_eq!(found, Recipe::parse(expected, "x").unwrap().single(&[]).unwrap());
        // What a recipe is without, it inherits from no file below.
        let without = |list: &str| {
            write("less.toml", &format!("base = \"top.toml\"\nwithout = {list}\n[mix]\nkind = \"long\"\n"));
            Recipe::read(&dir.path().join("less.toml")).and_then(|recipe| recipe.single(&[]))
        };
        let expected = "seed = 5\n[mix]\nkind = \"long\"\n[optimizer]\nkind = \"adam\"\nlr = 0.25\n";
        let expected = Recipe::parse(expected, "x").unwrap().single(&[]).unwrap();
        assert_eq!(without("[\"name\", \"mix\"]").unwrap(), expected);
        let bare = without("[\"optimizer\", \"mix\"]").unwrap();
        assert_eq!(bare.optimizer, Experiment::default().optimizer, "a section goes as a whole");
        for (wrong, told) in [("[\"mix.ratoi\"]", "less.toml: without: mix.ratoi"), ("3", "expected a list")]
        {
            let found = error(without(wrong));
            assert!(found.contains(told), "{found}");
        }
        write("loop.toml", "base = \"loop.toml\"\n");
        assert!(error(Recipe::read(&dir.path().join("loop.toml"))).contains("inherits from itself"));
        write("lost.toml", "base = \"nowhere.toml\"\n");
        let lost = error(Recipe::read(&dir.path().join("lost.toml")));
        assert!(lost.contains("lost.toml: base:") && lost.contains("nowhere.toml"), "{lost}");
        write("below.toml", "base = \"top.toml\"\n[sweep]\nseed = [1]\n");
        write("above.toml", "base = \"below.toml\"\n");
        assert!(error(Recipe::read(&dir.path().join("above.toml"))).contains("has a sweep"));
        // A mistake is where it was made, of values that are swept in the sweep.
        write(
            "swept.toml",
            "base = \"base.toml\"\n[optimizer]\nkind = \"sgd\"\nlr = 0.5\n\n[sweep]\noptimizer.lr = [0.1, \"fast\"]\n",
        );
        let wrong = error(Recipe::read(&dir.path().join("swept.toml")).unwrap().points(&[]));
        assert!(
            wrong.contains("swept.toml, line 7: sweep.optimizer.lr") && wrong.contains("fast"),
            "{wrong}"
        );
        write("base.toml", "name = \"base\"\n[mix]\nkind = \"mtl\"\nratoi = { 1 = 1 }\n");
        let wrong = error(Recipe::read(&dir.path().join("top.toml")).unwrap().single(&[]));
        assert!(
            wrong.contains("base.toml, line 4: mix.ratoi") && wrong.contains("did you mean `ratio`?"),
            "{wrong}"
        );
    }

    #[test]
    fn a_sweep_is_every_combination_in_order() {
        let text = "[sweep]\nseed = { from = 1, to = 3, step = 2 }\noptimizer.lr = [0.1, 0.2]\n\"mix.ratio\" = [{ 1 = 1 }]\n[optimizer]\nkind = \"sgd\"\n[mix]\nkind = \"mtl\"\n";
        let recipe = Recipe::parse(text, "x.toml").unwrap();
        let points = recipe.points(&[]).unwrap();
        let found: Vec<_> = points.iter().map(|p| (p.experiment.seed, p.experiment.optimizer.lr)).collect();
        assert_eq!(found, [(1, 0.1), (1, 0.2), (3, 0.1), (3, 0.2)]);
        assert_eq!(points[2].choice[0], ("seed".to_owned(), Value::Integer(3)));
        assert!(
            error(recipe.single(&[]))
                .contains("a sweep of 4 runs; choose one with --set, such as --set seed=1")
        );
        let fixed = ["seed=7".to_owned(), "optimizer.lr=0.5".to_owned()];
        assert_eq!(recipe.single(&fixed).unwrap().seed, 7);
        let floats =
            Recipe::parse("[sweep]\noptimizer.lr = { from = 0.1, to = 0.3, step = 0.1 }\n", "x").unwrap();
        assert_eq!(floats.points(&["optimizer.kind=sgd".to_owned()]).unwrap().len(), 3);
        let weights = Recipe::parse("[sweep]\ninit.from = [\"a.pth\", \"b.pth\"]\n", "x").unwrap();
        let from = |point: Point| point.experiment.init.from.display().to_string();
        let found: Vec<String> = weights
            .points(&["optimizer.kind=sgd".to_owned(), "optimizer.lr=0.1".to_owned()])
            .unwrap()
            .into_iter()
            .map(from)
            .collect();
        assert_eq!(found, ["a.pth", "b.pth"], "a setting that is called as the start of a range");
        for bad in [
            "seed = 3",
            "seed = []",
            "seed = { from = 1 }",
            "seed = { from = 2, to = 1 }",
            "seed = { from = 1, to = 2, by = 1 }",
        ] {
            assert!(
                error(Recipe::parse(&format!("[sweep]\n{bad}\n"), "x.toml")).contains("sweep.seed"),
                "{bad}"
            );
        }
        let unknown = Recipe::parse("[sweep]\nsede = [1, 2]\n", "x.toml").unwrap();
        let told = error(unknown.points(&[]));
        assert!(
            told.contains("x.toml, line 2: sweep.sede") && told.contains("did you mean `seed`?"),
            "{told}"
        );
    }

    #[test]
    fn mistakes_are_told_with_their_place_and_the_name_that_was_meant() {
        let told = |text: &str, overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
            error(Recipe::parse(text, "x.toml").and_then(|recipe| recipe.single(&overrides)))
        };
        for (text, overrides, expected) in [
            ("seeed = 1", &[][..], "x.toml, line 1: seeed: unknown field `seeed`"),
            ("seeed = 1", &[], "did you mean `seed`?"),
            ("\n[data]\nbatch_szie = 3", &[], "x.toml, line 3: data.batch_szie"),
            ("[mix]\nkind = \"lnog\"", &[], "did you mean `long`?"),
            ("[data.augment]\ndistort = { knids = [] }", &[], "x.toml, line 2: data.augment.distort"),
            ("", &["model.hiden=3"], "--set model.hiden=3: model.hiden"),
            ("", &["seed=fast"], "--set seed=fast: seed"),
            ("[mix]\nkind = \"mtl\"", &["mix={ kind = 3 }"], "--set mix={ kind = 3 }: mix.kind"),
            ("[optimizer]\nlr = 0.1", &[], "x.toml, line 1: optimizer: missing field `kind`"),
            ("zzzzzz = 1", &[], "x.toml, line 1: zzzzzz"),
        ] {
            let message = told(text, overrides);
            assert!(message.contains(expected), "{message}\nlacks {expected}");
        }
        assert!(!told("zzzzzz = 1", &[]).contains("did you mean"));
        assert!(told("seed = ", &[]).contains("line 1"), "what TOML's own parser says");
        assert!(told("[[stage]]\nname = \"a\"", &[]).contains("`nct run` trains it"));
        assert!(told("base = \"a.toml\"", &[]).contains("base"), "text without a folder cannot inherit");
    }
}
