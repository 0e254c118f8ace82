"""A trained model over HTTP: an API, and a page that draws what it is given and what was found."""
