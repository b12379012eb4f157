//! The text that Prometheus reads: exposition format 0.0.4.

use std::fmt::{Display, Write as _};

use crate::histogram::{BOUNDS, Times};

/// Content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text as it is written; names get a prefix.
#[derive(Debug)]
pub struct Text {
    text: String,
    prefix: &'static str,
}

impl Text {
    /// Empty. The prefix stands before every name but those of [`plain`](Self::plain).
    pub fn new(prefix: &'static str) -> Self {
        Self { text: String::with_capacity(16 * 1024), prefix }
    }

    /// What the lines that follow are. Once for each name.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        let prefix = self.prefix;
        let _ = writeln!(self.text, "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}");
    }

    /// One value.
    pub fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.prefix);
        self.value(name, labels, value);
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// One value that has no labels, with its head.
    pub fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(name, &[], value);
    }

    /// The same without the prefix.
    pub fn plain(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self.value(name, &[], value);
    }

    /// Times with these labels, behind a head of kind `histogram`.
    pub fn times(&mut self, name: &str, labels: &[(&str, &str)], times: &Times) {
        let mut so_far = 0;
        for (at, count) in times.buckets.iter().enumerate() {
            so_far += count;
            let bound = BOUNDS.get(at).map_or_else(|| "+Inf".to_owned(), |micros| (*micros as f64 / 1e6).to_string());
            self.line(&format!("{name}_bucket"), &[labels, &[("le", &bound)]].concat(), so_far);
        }
        self.line(&format!("{name}_sum"), labels, times.seconds());
        self.line(&format!("{name}_count"), labels, so_far);
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_quoted_and_names_have_their_prefix() {
        let mut text = Text::new("x_");
        text.line("a", &[("b", "c\"d\\e\nf"), ("g", "h")], 1);
        text.one("n", "gauge", "What it is.", 2.5);
        text.plain("p", "counter", "Another.", 3);
        assert_eq!(
            text.finish(),
            "x_a{b=\"c\\\"d\\\\e\\nf\",g=\"h\"} 1\n# HELP x_n What it is.\n# TYPE x_n gauge\nx_n 2.5\n# HELP p Another.\n# TYPE p counter\np 3\n"
        );
    }

    #[test]
    fn buckets_grow_to_the_count() {
        let mut text = Text::new("");
        text.times("t", &[("of", "x")], &Times { buckets: [1; 21], nanos: 2_000_000_000 });
        let text = text.finish();
        assert!(text.starts_with("t_bucket{of=\"x\",le=\"0.000005\"} 1\n"), "{text}");
        assert!(text.ends_with("t_bucket{of=\"x\",le=\"+Inf\"} 21\nt_sum{of=\"x\"} 2\nt_count{of=\"x\"} 21\n"), "{text}");
    }
}
