//! Markup that is well formed by construction: tags close in order, texts and attribute values are escaped.

use super::text::escape;

/// A piece of a page being written.
#[derive(Debug, Default)]
pub struct Markup {
    text: String,
    open: Vec<&'static str>,
}

/// Attributes of a tag: names of ours, values from anywhere.
pub type Attributes<'a> = &'a [(&'static str, &'a str)];

impl Markup {
    pub fn new() -> Self {
        Self::default()
    }

    fn begin(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        self.text.push('<');
        self.text.push_str(tag);
        for (name, value) in attributes {
            self.text.push(' ');
            self.text.push_str(name);
            self.text.push_str("=\"");
            self.text.push_str(&escape(value));
            self.text.push('"');
        }
    }

    pub fn open(&mut self, tag: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.begin(tag, attributes);
        self.text.push('>');
        self.open.push(tag);
        self
    }

    /// Closes the tag opened last.
    pub fn close(&mut self) -> &mut Self {
        let tag = self.open.pop().expect("every close has its open: both stand in our code");
        self.text.push_str("</");
        self.text.push_str(tag);
        self.text.push_str(">\n");
        self
    }

    /// A tag without content.
    pub fn empty(&mut self, tag: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.begin(tag, attributes);
        self.text.push_str("/>");
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.text.push_str(&escape(text));
        self
    }

    /// A tag with a text.
    pub fn leaf(&mut self, tag: &'static str, attributes: Attributes<'_>, text: &str) -> &mut Self {
        self.open(tag, attributes).text(text).close()
    }

    /// Another finished piece.
    pub fn put(&mut self, piece: Self) -> &mut Self {
        self.text.push_str(&piece.finish());
        self
    }

    /// Text of ours that is markup already: the style sheet.
    pub(super) fn trusted(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    pub fn finish(self) -> String {
        assert!(self.open.is_empty(), "left open: {:?}", self.open);
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_values_are_escaped_and_tags_closed() {
        let mut markup = Markup::new();
        markup.open("p", &[("title", "a\"b")]).text("<x>").empty("br", &[]).close();
        assert_eq!(markup.finish(), "<p title=\"a&quot;b\">&lt;x&gt;<br/></p>\n");
    }

    #[test]
    #[should_panic(expected = "left open")]
    fn an_open_tag_is_noticed() {
        let mut markup = Markup::new();
        markup.open("p", &[]);
        let _ = markup.finish();
    }
}
