//! What goes wrong and how it is said: one table.

use crate::reply::Reply;
use http::StatusCode;
use serde_json::json;
use spanloom_model::StoreError;
use spanloom_query::Invalid;
use spanloom_query::language::SyntaxError;

/// Why a question has no answer.
#[derive(Debug, Clone)]
pub enum Problem {
    /// The question cannot be understood.
    Invalid(String),
    /// Our query language: what is wrong, and at which character from 0.
    Syntax(SyntaxError),
    /// There is no such thing.
    NotFound(String),
    /// The path is known, the method is not; the known one.
    Method(&'static str),
    /// This installation does not have it.
    Unsupported(String),
    /// It exists in the protocol but not here, and clients expect a failure.
    Unavailable(String),
    /// Too much at the moment.
    Busy(String),
    /// The answer would exceed a limit.
    TooLarge(String),
    /// The store failed.
    Store(String),
}

impl Problem {
    /// HTTP status.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) | Self::Syntax(_) | Self::TooLarge(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unavailable(_) | Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// In words.
    pub fn message(&self) -> String {
        match self {
            Self::Syntax(e) => e.to_string(),
            Self::Method(known) => format!("the method is not allowed here; use {known}"),
            Self::Invalid(m)
            | Self::NotFound(m)
            | Self::Unsupported(m)
            | Self::Unavailable(m)
            | Self::Busy(m)
            | Self::TooLarge(m)
            | Self::Store(m) => m.clone(),
        }
    }

    fn headers(&self, reply: Reply) -> Reply {
        match self {
            Self::Method(known) => reply.header("allow", known),
            Self::Busy(_) => reply.header("retry-after", "1"),
            _ => reply,
        }
    }

    /// As Jaeger's first API says it.
    pub fn jaeger(&self) -> Reply {
        let code = self.status().as_u16();
        let body = json!({"data": null, "total": 0, "limit": 0, "offset": 0,
                          "errors": [{"code": code, "msg": self.message()}]});
        self.headers(Reply::json(body.to_string()).status(self.status()))
    }

    /// As Jaeger's third API says it.
    pub fn jaeger_v3(&self) -> Reply {
        let error = json!({"httpCode": self.status().as_u16(), "message": self.message()});
        self.headers(Reply::json(json!({"error": error}).to_string()).status(self.status()))
    }

    /// As Zipkin and Tempo say it: plain text.
    pub fn text(&self) -> Reply {
        self.headers(Reply::text(self.message()).status(self.status()))
    }

    /// As we say it; a syntax error tells the character, from 0.
    pub fn own(&self) -> Reply {
        let mut error = json!({"status": self.status().as_u16(), "message": self.message()});
        if let Self::Syntax(e) = self {
            error["position"] = e.position.into();
        }
        self.headers(Reply::json(json!({"error": error}).to_string()).status(self.status()))
    }
}

impl From<Invalid> for Problem {
    fn from(e: Invalid) -> Self {
        Self::Invalid(e.0)
    }
}

impl From<SyntaxError> for Problem {
    fn from(e: SyntaxError) -> Self {
        Self::Syntax(e)
    }
}

impl From<StoreError> for Problem {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::Busy(_) | StoreError::Closed => Self::Busy(e.to_string()),
            StoreError::TooLarge(_) => Self::TooLarge(e.to_string()),
            StoreError::Write(_) | StoreError::Read(_) => Self::Store(e.to_string()),
        }
    }
}
