//! The keys of `tidegate demo`, and lines that look right while it listens for them.
//!
//! Only a terminal on stdin is put in raw mode, and it is put back on drop and before a panic is printed.
//! In raw mode `\n` moves down but not left, so everything printed goes through [`line`] or [`Cooked`].

use std::io::{self, IsTerminal, Write};
use std::sync::Once;
use std::thread;
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal;
use tokio::sync::mpsc;

/// More than a held key repeats in a moment; a full channel makes the keyboard wait, and nothing else.
const KEYS_WAITING: usize = 16;
/// How long the thread may outlive [`Keys`].
const GLANCE: Duration = Duration::from_millis(100);

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// One more server: `+`.
    Up,
    /// One server less: `-`.
    Down,
    /// End the demo: `q` or Ctrl-C.
    Quit,
}

/// The keys typed while this lives. Dropping it gives the terminal back.
pub struct Keys {
    typed: mpsc::Receiver<Key>,
    raw: bool,
}

/// A writer that also returns to the left edge when a terminal is in raw mode; for logs:
/// `with_writer(|| Cooked(std::io::stderr()))`.
pub struct Cooked<W>(pub W);

/// Starts to listen for keys, if stdin is a terminal.
///
/// In raw mode Ctrl-C is a key, not a signal; without a terminal it stays a signal, which is the caller's.
pub fn keys() -> Keys {
    let (keys, typed) = mpsc::channel(KEYS_WAITING);
    if !io::stdin().is_terminal() {
        return Keys { typed, raw: false };
    }
    restore_on_panic();
    let raw = terminal::enable_raw_mode().is_ok();
    // Detached, and never inside a read that could block: it neither holds up nor outlives the process.
    let listening = raw && thread::Builder::new().name("keys".into()).spawn(move || listen(&keys)).is_ok();
    let keys = Keys { typed, raw };
    // Without a reader a raw terminal would be deaf to Ctrl-C: dropping `keys` restores it.
    if listening { keys } else { Keys { typed: mpsc::channel(1).1, raw: false } }
}

/// Prints a line on stdout, right in raw mode and out of it; a closed stdout is not an error.
pub fn line(text: &str) {
    let mut out = Cooked(io::stdout().lock());
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Takes the terminal out of raw mode; harmless when it is not, for an exit that drops nothing.
pub fn restore() {
    let _ = terminal::disable_raw_mode();
}

impl Keys {
    /// The next key; `None` when there will be none, because stdin is not a terminal or went away.
    ///
    /// Cancel-safe: no key is lost. `None` comes at once, so wait with `Some(key) = keys.next()` in a `select!`.
    pub async fn next(&mut self) -> Option<Key> {
        self.typed.recv().await
    }

    /// Whether keys can come at all, so that a caller tells of them only then.
    pub fn listening(&self) -> bool {
        self.raw
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if self.raw {
            restore();
        }
    }
}

impl<W: Write + IsTerminal> Write for Cooked<W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.write_all(text)?;
        Ok(text.len())
    }

    fn write_all(&mut self, text: &[u8]) -> io::Result<()> {
        if self.0.is_terminal() && terminal::is_raw_mode_enabled().unwrap_or(false) {
            self.0.write_all(&returned(text))
        } else {
            self.0.write_all(text)
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn listen(keys: &mpsc::Sender<Key>) {
    while !keys.is_closed() {
        let typed = match event::poll(GLANCE) {
            Ok(true) => event::read(),
            Ok(false) => continue,
            Err(_) => return,
        };
        let Ok(typed) = typed else { return };
        if key(&typed).is_some_and(|key| keys.blocking_send(key).is_err()) {
            return;
        }
    }
}

fn key(event: &Event) -> Option<Key> {
    let Event::Key(key) = event else { return None };
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
        _ if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => None,
        // `=` and `_` are the same two keys with the other shift.
        KeyCode::Char('+' | '=') => Some(Key::Up),
        KeyCode::Char('-' | '_') => Some(Key::Down),
        KeyCode::Char('q' | 'Q') => Some(Key::Quit),
        _ => None,
    }
}

fn returned(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 8);
    for &byte in text {
        if byte == b'\n' && out.last() != Some(&b'\r') {
            out.push(b'\r');
        }
        out.push(byte);
    }
    out
}

/// Puts the terminal back before the panic's message, which would otherwise run down like stairs.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            print(panic);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossterm::event::KeyEvent;

    fn typed(code: char, modifiers: KeyModifiers) -> Option<Key> {
        key(&Event::Key(KeyEvent::new(KeyCode::Char(code), modifiers)))
    }

    #[test]
    fn keys_mean_what_the_help_says() {
        assert_eq!(typed('+', KeyModifiers::SHIFT), Some(Key::Up));
        assert_eq!(typed('-', KeyModifiers::NONE), Some(Key::Down));
        assert_eq!(typed('q', KeyModifiers::NONE), Some(Key::Quit));
        assert_eq!(typed('c', KeyModifiers::CONTROL), Some(Key::Quit));
        assert_eq!(typed('c', KeyModifiers::NONE), None);
        assert_eq!(typed('q', KeyModifiers::ALT), None);
    }

    #[test]
    fn a_released_key_is_not_typed_again() {
        let mut event = KeyEvent::new(KeyCode::Char('+'), KeyModifiers::NONE);
        event.kind = KeyEventKind::Release;
        assert_eq!(key(&Event::Key(event)), None);
    }

    #[test]
    fn a_line_returns_to_the_left_edge_once() {
        assert_eq!(returned(b"a\nb\r\nc"), b"a\r\nb\r\nc");
    }

    #[tokio::test]
    async fn without_a_terminal_there_are_no_keys() {
        let mut keys = Keys { typed: mpsc::channel(1).1, raw: false };
        assert_eq!(keys.next().await, None);
    }
}
