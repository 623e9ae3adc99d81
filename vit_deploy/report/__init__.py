"""What was found, as documents: JSON, JUnit XML, Markdown, and one page of HTML."""
