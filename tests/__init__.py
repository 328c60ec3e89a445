"""The tests. Each says the behaviour it proves in its docstring; none sleeps, none retries."""
