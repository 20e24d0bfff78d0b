//! Any bytes as the pickle of a recording session.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nct::ingest::pickle::Pickle;
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    let Ok(pickle) = Pickle::parse(Path::new("fuzz.pickle"), data.to_vec()) else { return };
    let _ = pickle.text_pairs();
    for key in ["training_responses", "testing_responses", "training_image_ids", "subject_id", "session_id"] {
        if let Ok(Some(id)) = pickle.find(key) {
            let _ = pickle.text(id);
            let _ = pickle.array(id).map(|array| format!("{array:?}").len());
        }
    }
});
