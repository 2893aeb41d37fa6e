//! The access log as a reader sees it.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use serde_json::Value;

/// The writes: whole lines, one or more with each.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<Vec<u8>>>>);

impl Lines {
    /// All lines so far. Each is one document.
    pub fn all(&self) -> Vec<Value> {
        let writes = self.0.lock().unwrap();
        writes.iter().flat_map(|write| read(write)).collect()
    }
}

fn read(write: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(write).unwrap();
    let text = text.strip_suffix('\n').expect("a line has an end");
    text.split('\n').map(|line| serde_json::from_str(line).unwrap()).collect()
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
