"""Speed, memory and error of the engines beside what one would use instead: behind ``regrad benchmark``."""
