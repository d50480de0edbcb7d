//! One answer of many.

use super::{
    answer::{Answer, List},
    item::Kind,
    members::{Members, Object},
    page::Page,
};

/// What an answer says of who made it; SRS has these members too.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// For `server` and `service`.
    pub name: &'a str,
    /// For `pid`.
    pub pid: u32,
}

impl Identity<'_> {
    /// The beginning of an answer with this `code`.
    fn object(self, code: u16) -> Object {
        let mut object = Object::new();
        object.member("code", &code.to_string());
        object.text("server", self.name).text("service", self.name).text("pid", &self.pid.to_string());
        object
    }

    /// The answer to a request that failed.
    #[must_use]
    pub fn refusal(self, code: u16, message: &str) -> String {
        let mut object = self.object(code);
        object.text("message", message);
        object.finish()
    }
}

/// Why an origin has no part in an answer: a status of HTTP, and words.
pub type Failure = (u16, String);

/// The lists of several origins as one, in the order in which they are added.
#[derive(Debug)]
pub struct MergedList {
    kind: Kind,
    page: Page,
    /// Bytes of items that are kept at most.
    limit: usize,
    seen: usize,
    size: usize,
    items: Vec<String>,
    total: Option<u64>,
    origins: Vec<String>,
    answered: usize,
}

impl MergedList {
    /// An empty one, of which `page` is wanted.
    #[must_use]
    pub const fn new(kind: Kind, page: Page, limit: usize) -> Self {
        Self {
            kind,
            page,
            limit,
            seen: 0,
            size: 0,
            items: Vec::new(),
            total: Some(0),
            origins: Vec::new(),
            answered: 0,
        }
    }

    /// Adds what an origin answered, or why it did not.
    pub fn add(&mut self, origin: &str, answered: Result<List, Failure>) {
        let answered = answered.and_then(|list| self.take(list));
        self.answered += usize::from(answered.is_ok());
        self.origins.push(outcome(origin, answered.as_ref().err()));
    }

    fn take(&mut self, list: List) -> Result<(), Failure> {
        let first = self.page.start.saturating_sub(self.seen);
        let room = self.page.count - self.items.len();
        let wanted = || list.items.iter().skip(first).take(room);
        let size: usize = wanted().map(String::len).sum();
        if self.size + size > self.limit {
            return Err((
                502,
                "the answers of all origins together are too large; ask for fewer items".into(),
            ));
        }
        self.items.extend(wanted().cloned());
        self.size += size;
        self.seen += list.items.len();
        self.total = self.total.zip(list.total).map(|(all, these)| all.saturating_add(these));
        Ok(())
    }

    /// The answer, and its code.
    #[must_use]
    pub fn into_json(self, identity: Identity<'_>) -> (u16, String) {
        let code = code_of(self.answered, &self.origins);
        let mut object = identity.object(code);
        if let Some(total) = self.total.filter(|_| self.answered > 0) {
            object.member("total", &total.to_string());
        }
        object.member(self.kind.list(), &array(&self.items)).member("origins", &array(&self.origins));
        (code, object.finish())
    }
}

/// What each origin answered, one after the other.
#[derive(Debug)]
pub struct Combined {
    limit: usize,
    size: usize,
    origins: Vec<String>,
    answered: usize,
}

impl Combined {
    /// An empty one, for so many bytes of answers.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { limit, size: 0, origins: Vec::new(), answered: 0 }
    }

    /// Adds what an origin answered, or why it did not.
    pub fn add(&mut self, origin: &str, answered: Result<Answer, Failure>) {
        let answered = answered.and_then(|answer| self.take(answer));
        self.answered += usize::from(answered.is_ok());
        self.origins.push(match &answered {
            Ok(answer) => part(origin, answer),
            Err(failure) => outcome(origin, Some(failure)),
        });
    }

    fn take(&mut self, answer: Answer) -> Result<Answer, Failure> {
        if self.size + answer.json.len() > self.limit {
            return Err((502, "the answers of all origins together are too large; name one".into()));
        }
        self.size += answer.json.len();
        Ok(answer)
    }

    /// The answer, and its code.
    #[must_use]
    pub fn into_json(self, identity: Identity<'_>) -> (u16, String) {
        let code = code_of(self.answered, &self.origins);
        let mut object = identity.object(code);
        object.member("origins", &array(&self.origins));
        (code, object.finish())
    }
}

/// An error if there are origins and none of them answered.
fn code_of(answered: usize, origins: &[String]) -> u16 {
    if answered == 0 && !origins.is_empty() { 502 } else { 0 }
}

fn part(origin: &str, answer: &Answer) -> String {
    let mut object = Object::new();
    object.text("id", origin);
    for (name, value) in Members::parse(&answer.json).iter().flat_map(Members::iter) {
        if name != "id" {
            object.member(name, value.get());
        }
    }
    object.finish()
}

fn outcome(origin: &str, failure: Option<&Failure>) -> String {
    let mut object = Object::new();
    object.text("id", origin).member("code", &failure.map_or(0, |(code, _)| *code).to_string());
    if let Some((_, error)) = failure {
        object.text("error", error);
    }
    object.finish()
}

fn array(items: &[String]) -> String {
    format!("[{}]", items.join(","))
}
