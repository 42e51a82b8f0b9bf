-- What an account has kept: its oldest responses go first once it has too many.
CREATE INDEX response_by_owner ON response (owner, expires, length(sealed));
