//! Words to a query.

use super::ast::{
    Aggregate, Field, Gives, Intrinsic, Literal, Op, Pipeline, Relation, Scope, Spanset, Stage,
};
use super::lexer::{Token, Word, words};
use super::{Mistake, check};
use regex::Regex;
use spanloom_model::{SpanKind, Status};

/// Deeper nesting than this is refused: the parser calls itself.
const MAX_DEPTH: usize = 64;
/// More operators than this are refused: chains are evaluated by recursion.
const MAX_OPERATORS: usize = 256;
/// Longest query in bytes.
const MAX_LENGTH: usize = 16 << 10;

const METRICS: [&str; 9] = [
    "rate",
    "count_over_time",
    "min_over_time",
    "max_over_time",
    "avg_over_time",
    "sum_over_time",
    "quantile_over_time",
    "histogram_over_time",
    "compare",
];

pub(super) fn parse(text: &str) -> Result<Pipeline, Mistake> {
    if text.len() > MAX_LENGTH {
        return Err(Mistake { text: format!("the query is longer than {MAX_LENGTH} bytes"), at: 1 });
    }
    let mut parser = Parser { words: words(text)?, at: 0, depth: 0, operators: 0 };
    let pipeline = parser.pipeline()?;
    parser.hints()?;
    match parser.token() {
        Token::End => Ok(pipeline),
        _ => parser.unexpected("the end of the query"),
    }
}

struct Parser {
    words: Vec<Word>,
    at: usize,
    depth: usize,
    operators: usize,
}

impl Parser {
    fn word(&self) -> &Word {
        // The last word is the end, which nothing goes beyond.
        &self.words[self.at.min(self.words.len() - 1)]
    }

    fn token(&self) -> &Token {
        &self.word().token
    }

    fn next(&mut self) -> Token {
        let token = self.token().clone();
        self.at = (self.at + 1).min(self.words.len() - 1);
        token
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.token(), Token::Sign(s) if *s == sign)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.token(), Token::Word(w) if w == word)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Mistake> {
        if self.take(sign) { Ok(()) } else { self.unexpected(sign) }
    }

    fn wrong<T>(&self, text: impl Into<String>) -> Result<T, Mistake> {
        Err(Mistake { text: text.into(), at: self.word().at })
    }

    fn unexpected<T>(&self, wanted: &str) -> Result<T, Mistake> {
        let found = match self.token() {
            Token::End => "the end".to_owned(),
            Token::Sign(s) => format!("`{s}`"),
            Token::Word(w) => format!("`{w}`"),
            Token::Attr(scope, name) => format!("`{scope}.{name}`"),
            Token::Str(s) => format!("{s:?}"),
            Token::Int(_) | Token::Float(_) | Token::Duration(_) => "a number".to_owned(),
        };
        self.wrong(format!("unexpected {found}, expected {wanted}"))
    }

    /// Takes the operator that is next.
    fn operator(&mut self) -> Result<(), Mistake> {
        self.operators += 1;
        if self.operators > MAX_OPERATORS {
            return self.wrong(format!("more than {MAX_OPERATORS} operators"));
        }
        self.next();
        Ok(())
    }

    /// Runs a part that may nest.
    fn nested<T>(&mut self, part: impl FnOnce(&mut Self) -> Result<T, Mistake>) -> Result<T, Mistake> {
        if self.depth >= MAX_DEPTH {
            return self.wrong(format!("nested more than {MAX_DEPTH} deep"));
        }
        self.depth += 1;
        let result = part(self);
        self.depth -= 1;
        result
    }

    fn pipeline(&mut self) -> Result<Pipeline, Mistake> {
        if self.is_word("coalesce") {
            return self.wrong("a pipeline cannot begin with coalesce()");
        }
        let mut stages = vec![self.stage()?];
        while self.is("|") {
            self.operator()?;
            stages.push(self.stage()?);
        }
        Ok(Pipeline(stages))
    }

    fn stage(&mut self) -> Result<Stage, Mistake> {
        let Token::Word(word) = self.token().clone() else {
            return Ok(Stage::Spanset(self.spansets()?));
        };
        if METRICS.contains(&word.as_str()) || matches!(word.as_str(), "topk" | "bottomk") {
            return self.wrong(format!("metrics ({word}) are not supported; only searches are"));
        }
        let aggregate = match word.as_str() {
            "count" => Some(Aggregate::Count),
            "avg" => Some(Aggregate::Avg),
            "min" => Some(Aggregate::Min),
            "max" => Some(Aggregate::Max),
            "sum" => Some(Aggregate::Sum),
            "by" | "coalesce" | "select" => None,
            _ => return self.unexpected("`{`, `by`, `select`, `coalesce` or an aggregate"),
        };
        self.next();
        self.expect("(")?;
        let mut inside = Vec::new();
        if !self.is(")") {
            loop {
                inside.push(self.field()?);
                if !self.take(",") {
                    break;
                }
            }
        }
        self.expect(")")?;
        let count = inside.len();
        let Some(what) = aggregate else {
            return match (word.as_str(), count) {
                ("coalesce", 0) => Ok(Stage::Coalesce),
                ("by", 1) => {
                    check::of_span(&inside[0]).or_else(|e| self.wrong(e))?;
                    Ok(Stage::By(inside.remove(0)))
                }
                ("select", 1..) => {
                    if inside.iter().all(|f| matches!(f, Field::Attr(..) | Field::Intrinsic(_))) {
                        Ok(Stage::Select(inside))
                    } else {
                        self.wrong("select() takes attributes and intrinsics only")
                    }
                }
                _ => self.wrong(format!("{word}() does not take {count} arguments")),
            };
        };
        let of = match (what, count) {
            (Aggregate::Count, 0) => None,
            (Aggregate::Count, _) => return self.wrong("count() takes nothing"),
            (_, 1) => {
                check::number_of_span(&inside[0]).or_else(|e| self.wrong(e))?;
                inside.pop()
            }
            _ => return self.wrong(format!("{word}() takes one expression")),
        };
        let op = match self.token() {
            Token::Sign(s) => comparison(s),
            _ => None,
        };
        let Some(op) = op else { return self.unexpected("a comparison") };
        self.next();
        if let Token::Word(w) = self.token()
            && matches!(w.as_str(), "count" | "avg" | "min" | "max" | "sum")
        {
            return self.wrong("comparing two aggregates is not supported");
        }
        let with = self.terms()?;
        check::number(&with).or_else(|e| self.wrong(e))?;
        Ok(Stage::Aggregate { what, of, op, with })
    }

    /// `&&` and `||` bind equally, from the left, as in Tempo's grammar.
    fn spansets(&mut self) -> Result<Spanset, Mistake> {
        let mut left = self.structure()?;
        loop {
            let and = self.is("&&");
            if !and && !self.is("||") {
                return Ok(left);
            }
            self.operator()?;
            let right = self.structure()?;
            let (left_box, right_box) = (Box::new(left), Box::new(right));
            left = if and { Spanset::And(left_box, right_box) } else { Spanset::Or(left_box, right_box) };
        }
    }

    fn structure(&mut self) -> Result<Spanset, Mistake> {
        let mut left = self.spanset()?;
        while let Token::Sign(sign) = *self.token() {
            let (gives, rest) = match sign.strip_prefix('!') {
                Some(rest) => (Gives::Unrelated, rest),
                None => match sign.strip_prefix('&') {
                    Some(rest) => (Gives::Both, rest),
                    None => (Gives::Right, sign),
                },
            };
            let relation = match rest {
                ">" => Relation::Child,
                ">>" => Relation::Descendant,
                "<" => Relation::Parent,
                "<<" => Relation::Ancestor,
                "~" => Relation::Sibling,
                _ => break,
            };
            self.operator()?;
            let right = self.spanset()?;
            left = Spanset::Structure(relation, gives, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn spanset(&mut self) -> Result<Spanset, Mistake> {
        if self.take("(") {
            let pipeline = self.nested(Self::pipeline)?;
            self.expect(")")?;
            let mut stages = pipeline.0;
            return Ok(match (stages.len(), stages.pop()) {
                (1, Some(Stage::Spanset(inner))) => inner,
                (_, last) => {
                    stages.extend(last);
                    Spanset::Pipeline(Box::new(Pipeline(stages)))
                }
            });
        }
        self.expect("{")?;
        if self.take("}") {
            return Ok(Spanset::Filter(Field::Literal(Literal::Bool(true))));
        }
        let at = self.word().at;
        let field = self.field()?;
        self.expect("}")?;
        check::condition(&field).map_err(|text| Mistake { text, at })?;
        Ok(Spanset::Filter(field))
    }

    /// `with (name=value, …)`: how Tempo should search, which does not matter here.
    fn hints(&mut self) -> Result<(), Mistake> {
        if !self.is_word("with") {
            return Ok(());
        }
        self.next();
        self.expect("(")?;
        loop {
            if !matches!(self.next(), Token::Word(_)) {
                return self.unexpected("the name of a hint");
            }
            self.expect("=")?;
            self.next();
            if !self.take(",") {
                return self.expect(")");
            }
        }
    }

    fn field(&mut self) -> Result<Field, Mistake> {
        self.nested(|p| {
            let mut left = p.comparison()?;
            loop {
                let op = match p.token() {
                    Token::Sign("&&") => Op::And,
                    Token::Sign("||") => Op::Or,
                    _ => return Ok(left),
                };
                p.operator()?;
                left = Field::Binary(op, Box::new(left), Box::new(p.comparison()?));
            }
        })
    }

    fn comparison(&mut self) -> Result<Field, Mistake> {
        let mut left = self.terms()?;
        while let Token::Sign(sign) = *self.token() {
            if matches!(sign, "=~" | "!~") {
                self.operator()?;
                let Token::Str(text) = self.token().clone() else {
                    return self.unexpected("a text with a regular expression");
                };
                // All of the text must match.
                let pattern = match Regex::new(&format!("^(?:{text})$")) {
                    Ok(pattern) => pattern,
                    Err(e) => return self.wrong(format!("not a regular expression: {e}")),
                };
                self.next();
                left = Field::Match { field: Box::new(left), pattern, wanted: sign == "=~" };
                continue;
            }
            let Some(op) = comparison(sign) else { break };
            self.operator()?;
            left = Field::Binary(op, Box::new(left), Box::new(self.terms()?));
        }
        Ok(left)
    }

    fn terms(&mut self) -> Result<Field, Mistake> {
        let mut left = self.factors()?;
        loop {
            let op = match self.token() {
                Token::Sign("+") => Op::Add,
                Token::Sign("-") => Op::Sub,
                _ => return Ok(left),
            };
            self.operator()?;
            left = Field::Binary(op, Box::new(left), Box::new(self.factors()?));
        }
    }

    fn factors(&mut self) -> Result<Field, Mistake> {
        let mut left = self.unary()?;
        loop {
            let op = match self.token() {
                Token::Sign("*") => Op::Mul,
                Token::Sign("/") => Op::Div,
                Token::Sign("%") => Op::Mod,
                _ => return Ok(left),
            };
            self.operator()?;
            left = Field::Binary(op, Box::new(left), Box::new(self.unary()?));
        }
    }

    fn unary(&mut self) -> Result<Field, Mistake> {
        if self.take("!") {
            return Ok(Field::Not(Box::new(self.nested(Self::unary)?)));
        }
        if self.take("-") {
            return Ok(Field::Minus(Box::new(self.nested(Self::unary)?)));
        }
        let base = self.value()?;
        if self.take("^") {
            let power = self.nested(Self::unary)?;
            return Ok(Field::Binary(Op::Pow, Box::new(base), Box::new(power)));
        }
        Ok(base)
    }

    fn value(&mut self) -> Result<Field, Mistake> {
        if self.take("(") {
            let inner = self.field()?;
            self.expect(")")?;
            return Ok(inner);
        }
        let field = match self.token().clone() {
            Token::Str(s) => Field::Literal(Literal::Str(s)),
            Token::Int(n) => Field::Literal(Literal::Int(n)),
            Token::Float(n) => Field::Literal(Literal::Float(n)),
            Token::Duration(n) => Field::Literal(Literal::Duration(n)),
            Token::Attr(scope, name) => match attribute(&scope, name) {
                Ok(field) => field,
                Err(text) => return self.wrong(text),
            },
            Token::Word(word) => match self.named(&word) {
                Some(field) => field,
                None if word == "parent" => return self.wrong("`parent` is not supported"),
                None => {
                    return self.wrong(format!(
                        "unknown name `{word}`; attributes begin with a dot or a scope: `.{word}`, `span.{word}`"
                    ));
                }
            },
            _ => return self.unexpected("a value"),
        };
        self.next();
        Ok(field)
    }

    fn named(&self, word: &str) -> Option<Field> {
        if let Some(intrinsic) = Intrinsic::from_name(word).filter(|_| word != "rootService") {
            return Some(Field::Intrinsic(intrinsic));
        }
        let literal = match word {
            "true" => Literal::Bool(true),
            "false" => Literal::Bool(false),
            "nil" => Literal::Nil,
            "ok" => Literal::Status(Status::Ok),
            "error" => Literal::Status(Status::Error),
            "unset" => Literal::Status(Status::Unset),
            "unspecified" => Literal::Kind(SpanKind::Unspecified),
            other => Literal::Kind(SpanKind::from_name(other).filter(|k| k.name() == other)?),
        };
        Some(Field::Literal(literal))
    }
}

/// An attribute by its scope and name, `span` and so on.
pub(super) fn attribute(scope: &str, name: String) -> Result<Field, String> {
    let scope = match scope {
        "" => Scope::Any,
        "span" => Scope::Span,
        "resource" => Scope::Resource,
        "event" => Scope::Event,
        "link" => Scope::Link,
        "instrumentation" => Scope::Instrumentation,
        _ => return Err("attributes of the parent are not supported".into()),
    };
    Ok(Field::Attr(scope, name))
}

fn comparison(sign: &str) -> Option<Op> {
    Some(match sign {
        "=" => Op::Eq,
        "!=" => Op::Ne,
        "<" => Op::Lt,
        "<=" => Op::Le,
        ">" => Op::Gt,
        ">=" => Op::Ge,
        _ => return None,
    })
}
