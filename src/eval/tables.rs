//! Scores as files for spreadsheets and data frames: a row a neuron, a class, a pair of classes.

use super::{Evaluation, Parts, Suite, TaskScores};
use crate::base::Split;
use crate::objective::score::NeuronScores;
use crate::runs::{RunError, write_atomic};
use crate::table::csv_cell as cell;
use std::fmt::Write;
use std::path::Path;

/// Writes `neurons.csv`, `classes.csv`, `confusion.csv` and, of test images, `predictions.csv` into `folder`, which is made if it is not there;
/// a table without rows is not written. What is undefined is an empty cell. Each file is replaced in one step.
pub fn write_tables(folder: &Path, run: &str, scored: &[(Evaluation, TaskScores)]) -> Result<(), RunError> {
    std::fs::create_dir_all(folder).map_err(|source| RunError::Io {
        path: folder.to_path_buf(),
        action: "create",
        source,
    })?;
    let header = format!("run,mode,area,session,neuron,{}\n", NeuronScores::METRICS.join(","));
    let mut tables = [
        ("neurons.csv", header),
        ("classes.csv", "run,mode,class,count,correct,accuracy\n".to_owned()),
        ("confusion.csv", "run,mode,class,predicted,count\n".to_owned()),
        ("predictions.csv", "run,mode,image,class,predicted,rank,probability\n".to_owned()),
    ];
    let headers = tables.clone();
    let [(_, neurons), (_, classes), (_, confusion), (_, predictions)] = &mut tables;
    for (evaluation, scores) in scored {
        let head = format!("{},{}", cell(run), cell(&evaluation.mode));
        match &scores.parts {
            Parts::Sessions { .. } => add_neurons(neurons, &head, scores),
            Parts::Classes { .. } => {
                add_classes(classes, confusion, &head, scores);
                if evaluation.split == Split::Test && evaluation.suite != Suite::Corruptions {
                    add_predictions(predictions, &head, scores);
                }
            }
        }
    }
    for ((name, text), (_, header)) in tables.iter().zip(&headers) {
        if text != header {
            write_atomic(&folder.join(name), text.as_bytes())?;
        }
    }
    Ok(())
}

fn add_neurons(out: &mut String, head: &str, scores: &TaskScores) {
    let Parts::Sessions { scores: sessions, .. } = &scores.parts else { return };
    for (session, of_session) in sessions {
        for (n, neuron) in of_session.neurons.iter().enumerate() {
            let values: Vec<String> = neuron.values().into_iter().map(number).collect();
            let (area, session) = (scores.task, cell(session));
            let _ = writeln!(out, "{head},{area},{session},{n},{}", values.join(","));
        }
    }
}

fn add_classes(classes: &mut String, confusion: &mut String, head: &str, scores: &TaskScores) {
    let Parts::Classes { scores, .. } = &scores.parts else { return };
    let name = |class: usize| cell(&scores.names[class]);
    for class in 0..scores.names.len() {
        let (count, correct) = (scores.counts[class], scores.correct[class]);
        let accuracy = number(scores.class_accuracy(class));
        let _ = writeln!(classes, "{head},{},{count},{correct},{accuracy}", name(class));
    }
    for (&(class, predicted), count) in &scores.confusion {
        let _ = writeln!(confusion, "{head},{},{},{count}", name(class), name(predicted));
    }
}

/// Rank 0 is first; the probability is that of the right class.
fn add_predictions(out: &mut String, head: &str, scores: &TaskScores) {
    let Parts::Classes { scores, guesses, .. } = &scores.parts else { return };
    let name = |class: i64| scores.names.get(class as usize).map_or_else(String::new, |name| cell(name));
    for (i, image) in guesses.images.iter().enumerate() {
        let (class, predicted) = (name(guesses.labels[i]), name(guesses.predicted[i]));
        let (rank, probability) = (guesses.ranks[i], (-guesses.losses[i]).exp());
        let _ = writeln!(out, "{head},{image},{class},{predicted},{rank},{probability:.4}");
    }
}

fn number(value: Option<f64>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Split, Task};
    use crate::objective::score::{ClassScores, Guesses, Predictions, summary};

    #[test]
    fn tables_have_a_row_a_neuron_a_class_and_a_pair_and_empty_cells_for_what_is_undefined() {
        let session = Predictions {
            n_neurons: 2,
            images: vec![1, 2],
            predicted: vec![1.0, 2.0, 3.0, 2.0],
            recorded: vec![1.0, 0.0, 3.0, 0.0],
        };
        let (responses, session) = (vec![session.clone()], session.scores());
        let neural = TaskScores {
            task: Task::V4,
            metrics: summary(&[&session]),
            parts: Parts::Sessions { scores: vec![("s1".to_owned(), session)], responses },
        };
        let guesses = Guesses {
            images: vec![0, 7],
            labels: vec![0, 0],
            predicted: vec![0, 1],
            ranks: vec![0, 1],
            losses: vec![0.0, 1.0],
            left_out: 0,
        };
        let counted = ClassScores::new(vec!["a,b".to_owned(), "c".to_owned()], &guesses);
        let images = TaskScores {
            task: Task::Classification,
            metrics: counted.summary(None),
            parts: Parts::Classes { scores: counted, guesses: Box::new(guesses), unmatched: Vec::new() },
        };
        let mut scored = vec![
            (Evaluation::clean(Task::V4, Split::Test), neural),
            (Evaluation::clean(Task::Classification, Split::Validation), images.clone()),
        ];
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tables");
        write_tables(&folder, "runs/x", &scored).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        assert!(!folder.join("predictions.csv").exists(), "of test images only");
        scored.push((Evaluation::clean(Task::Classification, Split::Test), images));
        write_tables(&dir.path().join("test"), "runs/x", &scored).unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("test/predictions.csv")).unwrap(),
            "run,mode,image,class,predicted,rank,probability\nruns/x,test,0,\"a,b\",\"a,b\",0,1.0000\nruns/x,test,7,\"a,b\",c,1,0.3679\n"
        );
        let neurons = read("neurons.csv");
        let rows: Vec<&str> = neurons.lines().collect();
        assert_eq!(rows.len(), 3);
        assert!(
            rows[1].starts_with("runs/x,test,v4,s1,0,0.99999") && rows[1].ends_with(",0,,,,,"),
            "{neurons}"
        );
        assert!(rows[2].starts_with("runs/x,test,v4,s1,1,0,4,4,"), "{neurons}");
        assert_eq!(
            read("classes.csv"),
            "run,mode,class,count,correct,accuracy\nruns/x,validation,\"a,b\",2,1,50\nruns/x,validation,c,0,0,\n"
        );
        assert_eq!(
            read("confusion.csv"),
            "run,mode,class,predicted,count\nruns/x,validation,\"a,b\",\"a,b\",1\nruns/x,validation,\"a,b\",c,1\n"
        );
        let images_only = dir.path().join("images");
        write_tables(&images_only, "runs/x", &scored[1..]).unwrap();
        assert!(!images_only.join("neurons.csv").exists());
    }
}
