//! The access log, as whoever reads it sees it.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use serde_json::Value;

/// What was written, a line for each write.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<Vec<u8>>>>);

impl Lines {
    /// All lines so far. Each is one write and one document.
    pub fn all(&self) -> Vec<Value> {
        let lines = self.0.lock().unwrap();
        lines.iter().map(|line| read(line)).collect()
    }
}

fn read(line: &[u8]) -> Value {
    let text = std::str::from_utf8(line).unwrap();
    let text = text.strip_suffix('\n').expect("a line has an end");
    assert!(!text.contains('\n'), "{text}");
    serde_json::from_str(text).unwrap()
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push(bytes.into());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
