//! What is wrong with a configuration, shown where it is wrong.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::File;

/// One complaint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Byte range in [`File::text`].
    pub span: Range<usize>,
    /// What is wrong, with the value that failed.
    pub message: String,
    /// What is allowed, or what was probably meant.
    pub help: String,
}

/// Everything wrong with one file: whoever edits it should need one round only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The file; its text is empty if it could not be read.
    pub file: File,
    /// At least one, in the order of the file.
    pub list: Vec<Problem>,
}

impl Problem {
    /// A problem at `span`.
    #[must_use]
    pub fn new(span: Range<usize>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            help: help.into(),
        }
    }
}

impl Problems {
    /// `Ok` if nothing is wrong, so that a caller collects first and asks at the end.
    ///
    /// # Errors
    ///
    /// The problems, in the order of the file.
    pub fn check(file: &File, mut list: Vec<Problem>) -> Result<(), Self> {
        if list.is_empty() {
            return Ok(());
        }
        list.sort_by_key(|p| p.span.start);
        let file = file.clone();
        Err(Self { file, list })
    }

    /// All problems for a terminal that shows colours; `Display` has none.
    #[must_use]
    pub fn coloured(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let path = self.file.path.display().to_string();
        let mut out = Vec::with_capacity(self.list.len());
        for problem in &self.list {
            out.push(problem.render(&self.file.text, &path, renderer));
        }
        out.join("\n\n")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}

impl std::error::Error for Problems {}

impl Problem {
    fn render(&self, text: &str, path: &str, renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(&*self.message);
        let help = Level::HELP.message(&*self.help);
        if text.is_empty() {
            return renderer.render(&[title.element(help)]);
        }
        let line = Line::of(text, &self.span);
        let snippet = Snippet::source(line.text)
            .path(path)
            .line_start(line.number)
            .annotation(AnnotationKind::Primary.span(line.span));
        renderer.render(&[title.element(snippet).element(help)])
    }
}

/// The one line shown: a long file costs nothing, and a span over many lines is cut to its first.
struct Line<'t> {
    number: usize,
    text: &'t str,
    span: Range<usize>,
}

impl<'t> Line<'t> {
    fn of(text: &'t str, span: &Range<usize>) -> Self {
        let start = floor(text, span.start);
        let first = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let len = text[first..].find('\n').unwrap_or(text.len() - first);
        let line = text[first..first + len].trim_end_matches('\r');
        let from = (start - first).min(line.len());
        let to = floor(line, span.end.saturating_sub(first)).max(from);
        Self {
            number: 1 + text[..first].matches('\n').count(),
            text: line,
            span: from..to,
        }
    }
}

/// The character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A value of the user in quotes, short and without control characters.
pub(crate) fn shown(value: &str) -> String {
    const LONGEST: usize = 60;
    let cut: String = value.chars().take(LONGEST).collect();
    let dots = if cut.len() < value.len() { "..." } else { "" };
    format!("\"{}{dots}\"", cut.escape_debug())
}

/// What is `allowed`, and before it the word that `text` was probably meant to be.
pub(crate) fn suggest<'w>(text: &str, words: impl Iterator<Item = &'w str>, allowed: &str) -> String {
    match nearest(text, words) {
        Some(word) => format!("did you mean \"{word}\"? {allowed}"),
        None => allowed.into(),
    }
}

/// What is allowed, with a hint before it.
pub(super) fn with_hint(hint: &str, allowed: &str) -> String {
    match allowed.starts_with("allowed: ") {
        true => format!("{hint} {allowed}"),
        false => format!("{hint} allowed: {allowed}"),
    }
}

/// The word most like `text`, if any is like it at all; small and capital letters count the same.
pub(super) fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    // Comparing costs the product of the lengths; no key is longer than this.
    if text.len() > 40 {
        return None;
    }
    let text = text.to_lowercase();
    let scored = words.map(|word| (strsim::jaro_winkler(&text, &word.to_lowercase()), word));
    let close = scored.filter(|(score, _)| *score > 0.8);
    close.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, word)| word)
}
