"""What names say of files before they are read: which are pictures, which were left by tools, which are classes."""
